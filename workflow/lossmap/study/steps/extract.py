"""Manifest, checkpoint -> one part of an embedding store."""

from pathlib import Path

import pandas as pd
import torch

from lossmap.errors import LossmapError
from lossmap.store import write_part
from lossmap.study.products import product_key
from lossmap.study.provenance import provenance
from lossmap.study.specs import Extract
from lossmap.vlm.embedding import Batches, describe, embed_images
from lossmap.vlm.loading import VisionSide, load_vision_side
from lossmap.vlm.tiled import TiledPreprocessor


def run(*, images: Path, part: Path, first: int, stop: int, spec: Extract, threads: int = 1) -> None:
    """Embed images `first` to `stop` (exclusive) of a manifest, before and after a model's connector.

    spec: checkpoint, revision, image_size, view, batch_size, dtype (stored), compute_dtype, store_post (false: of post
    only the means). Runs on the GPU where there is one (CUDA_VISIBLE_DEVICES= hides it). The language model is never
    loaded.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = pd.read_parquet(images).iloc[first:stop]
    vision = load_vision_side(**spec.opening, dtype=spec.compute_dtype, device=device)
    _check_shapes(vision, rows)
    batches = Batches(vision.preprocessor, rows["path"].tolist(), spec.batch_size, sha256=rows["sha256"].tolist())
    about = describe(vision, {**product_key("embeddings", vision.model_type), **spec.plain()})
    embedded = embed_images(vision, batches, getattr(torch, spec.dtype), threads=threads)
    what, made = f"images {first} to {stop}", provenance("extract", device=device)
    write_part(embedded, part, rows["image_id"].tolist(), spec.dtype, about, spec.store_post, what, made)


def _check_shapes(vision: VisionSide, rows: pd.DataFrame) -> None:
    """Raise LossmapError with all images whose shape the model's views don't take, before any is embedded."""
    if not isinstance(vision.preprocessor, TiledPreprocessor):
        return
    problems: dict[tuple[int, int], str] = {}
    for size in sorted(set(zip(rows["width"].tolist(), rows["height"].tolist(), strict=True))):
        try:
            vision.preprocessor.layout(*size)
        except LossmapError as error:
            problems[size] = str(error)
    if problems:
        sizes = list(zip(rows["width"].tolist(), rows["height"].tolist(), strict=True))
        raise LossmapError.listing(
            f"{vision.checkpoint}: images that can't be seen in its views:",
            [f"{path}: {problems[size]}" for path, size in zip(rows["path"], sizes, strict=True) if size in problems],
            "Nothing was embedded of this part.",
        )
