"""Manifest, checkpoint -> one part of an embedding store."""

from pathlib import Path

import pandas as pd
import torch

from lossmap.store import write_part
from lossmap.study.products import product_key
from lossmap.study.provenance import provenance
from lossmap.study.specs import Extract
from lossmap.vlm.embedding import Batches, describe, embed_images
from lossmap.vlm.loading import load_vision_side


def run(*, images: Path, part: Path, first: int, stop: int, spec: Extract, threads: int = 1) -> None:
    """Embed images `first` to `stop` (exclusive) of a manifest, before and after a model's connector.

    spec: checkpoint, revision, image_size, batch_size, dtype (stored), compute_dtype, store_post (false: of post only
    the means). Runs on the GPU where there is one (CUDA_VISIBLE_DEVICES= hides it). The language model is never loaded.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = pd.read_parquet(images).iloc[first:stop]
    vision = load_vision_side(**spec.opening, dtype=spec.compute_dtype, device=device)
    batches = Batches(vision.preprocessor, rows["path"].tolist(), spec.batch_size, sha256=rows["sha256"].tolist())
    about = describe(vision, {**product_key("embeddings", vision.model_type), **spec.plain()})
    embedded = embed_images(vision, batches, getattr(torch, spec.dtype), threads=threads)
    what, made = f"images {first} to {stop}", provenance("extract", device=device)
    write_part(embedded, part, rows["image_id"].tolist(), spec.dtype, about, spec.store_post, what, made)
