"""Manifest, checkpoint -> one part of an embedding store."""

import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from lossmap.store.writer import PartWriter
from lossmap.study.products import product_key
from lossmap.study.provenance import provenance
from lossmap.vlm.embedding import Batches, embed_images
from lossmap.vlm.loading import load_vision_side


def run(*, images: Path, part: Path, first: int, stop: int, spec: dict, threads: int = 1) -> None:
    """Embed images `first` to `stop` (exclusive) of a manifest, before and after a model's connector.

    spec: checkpoint, revision, image_size, batch_size, dtype (stored), compute_dtype, store_post (false: of post only
    the means). Runs on the GPU where there is one (CUDA_VISIBLE_DEVICES= hides it). The language model is never loaded.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = pd.read_parquet(images).iloc[first:stop]
    model = {key: spec[key] for key in ("checkpoint", "revision", "image_size")}
    vision = load_vision_side(**model, dtype=spec["compute_dtype"], device=device)
    batches = Batches(vision.preprocessor, rows["path"].tolist(), rows["sha256"].tolist(), spec["batch_size"])
    embedded = embed_images(vision, batches, getattr(torch, spec["dtype"]), threads=threads)
    writer = None
    with tqdm(total=len(rows), unit="image", desc=f"images {first} to {stop}") as progress:
        for batch in embedded:
            if writer is None:
                how = {
                    "pre_grid": list(vision.pre_grid),
                    "post_grid": vision.post_grid and list(vision.post_grid),
                    "preprocessing": json.loads(json.dumps(asdict(vision.preprocessor))),
                    "key": {**product_key("embeddings", vision.model_type), **vision.provenance, **spec},
                }
                shapes = batch["pre"].shape[1:], batch["post"].shape[1:]
                writer = PartWriter(
                    part,
                    rows["image_id"].tolist(),
                    *shapes,
                    spec["dtype"],
                    how,
                    store_post=spec["store_post"],
                    provenance=provenance("extract", device=device),
                )
            writer.append(**batch)
            progress.update(len(batch["pre"]))
    writer.close()
