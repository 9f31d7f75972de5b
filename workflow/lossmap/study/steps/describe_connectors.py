"""Checkpoints, embedding stores -> what enters and leaves each model's connector, how large it is, what it is shown."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.store.images import Images
from lossmap.store.index import open_store
from lossmap.study.specs import DescribeConnectors
from lossmap.vlm.checkpoints import resolve_checkpoint
from lossmap.vlm.connector_size import connector_parameters
from lossmap.vlm.families import FAMILIES
from lossmap.vlm.receives import SEQUENCE, received


def run(*, embeddings: list[Path], table: Path, spec: DescribeConnectors) -> None:
    """Describe the connectors of all models, a row each.

    embeddings: an index of each model's embeddings, of any dataset, in the order of the spec's models, which says
    whose index is which. Where images differ in layout, patches and tokens are the median over those of that dataset.
    """
    rows = []
    for model, index in zip(spec.models, embeddings, strict=True):
        store = open_store(index)
        images = Images(store)
        patches, tokens = (_median(images, count) for count in ("patches", "tokens"))
        row = {"model": model.name, "pre_patches": patches, "pre_features": store["pre"].shape[-1]}
        row |= {"post_tokens": tokens, "post_features": store["post"].shape[-1]}
        folder = resolve_checkpoint(model.checkpoint, model.revision)
        row["connector_parameters"] = connector_parameters(folder, model.receives)
        row |= {
            "input": _input(store.attrs["preprocessing"], images),
            "receives": _receives(store.attrs.get("key", {})),
        }
        rows.append(row)
    pd.DataFrame(rows).to_parquet(table, index=False)


def _receives(key: dict) -> str | None:
    """Which connectors of a DeepStack model are measured, from the key of a store; None of other models."""
    family = FAMILIES.get(str(key.get("model_type")))
    if family is None or not family.stacked:
        return None
    return "merger alone" if received(key, family) == SEQUENCE else "merger and DeepStack"


def _median(images: Images, count: str) -> int:
    """Patches or tokens of an image, the lower median."""
    each = np.array([getattr(shape, count) for shape in images.shapes])[images.kinds]
    return int(np.sort(each)[(len(each) - 1) // 2])


def _input(preprocessing: dict, images: Images) -> str:
    """What the model sees of an image, from its preprocessing and the layouts as the store tells them."""
    if images.ragged:
        views, tokens = (
            [one(shape) for shape in images.shapes] for one in (lambda s: len(s.views), lambda s: s.tokens)
        )
        shown = "own shape" if max(views) == 1 else f"{_range(views)} views"
        return f"{shown}, {_range(tokens)} tokens"
    if preprocessing.get("pad"):
        return f"between margins, {_by(preprocessing['crop'] or preprocessing['size'])} px"
    if preprocessing["crop"]:
        return f"centre crop, {_by(preprocessing['crop'])} px"
    shape = "squashed" if preprocessing.get("view") in ("any", "longest") else "resized"
    return f"{shape} to {_by(preprocessing['size'])} px"


def _range(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _by(sides: list[int]) -> str:
    return " x ".join(str(side) for side in sides[::-1])  # stored as height, width
