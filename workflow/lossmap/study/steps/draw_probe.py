"""Probed patches, images -> maps of what the connector sees."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.data.images import load_image
from lossmap.figures.probe import Probed, probe_maps
from lossmap.figures.style import save, use_style
from lossmap.store.index import open_store
from lossmap.vlm.geometry import ImageGeometry

TITLES = {"random": "random", "towards": "to another", "loss": "loss"}


def run(*, patches: list[Path], embeddings: list[Path], images: Path, pdf: Path, png: Path, spec: dict) -> None:
    """Draw, for each model, the probed images whose responses are most and least uneven, with their maps.

    patches, embeddings: one per model, in one order. spec: models, in that order.
    """
    use_style()
    files = pd.read_parquet(images).set_index("image_id")
    tables = [pd.read_parquet(path) for path in patches]
    shown = [name for name in TITLES if all(name in table for table in tables)]
    groups = {}
    for table, index, model in zip(tables, embeddings, spec["models"], strict=True):
        groups[model] = _examples(table, open_store(index), files, shown)
    save(probe_maps(groups, [TITLES[name] for name in shown]), pdf, png)


def _examples(table: pd.DataFrame, store, files: pd.DataFrame, shown: list[str]) -> list[Probed]:
    by_image = table.groupby("image_id", sort=False)["random"]
    spread = (by_image.std(ddof=0) / by_image.mean()).sort_values(ascending=False, kind="stable")
    places = dict.fromkeys([0, len(spread) - 1])  # one where there is one
    rows, cols = store.attrs["pre_grid"]
    position = {image: i for i, image in enumerate(store["image_id"].values)}
    examples = []
    for place in places:
        image = spread.index[place]
        box, size = (store[name][position[image]].values for name in ("box", "size"))
        boxes = ImageGeometry(*(int(side) for side in size), tuple(box.tolist()), rows, cols).boxes()
        own = table[table["image_id"] == image].sort_values(["row", "col"])
        maps = [own[name].to_numpy().reshape(rows, cols) for name in shown]
        row = files.loc[image]
        picture = np.asarray(load_image(row["path"], row["sha256"]))
        examples.append(Probed(f"spread\n{spread.iloc[place]:.2f}", picture, boxes, maps))
    return examples
