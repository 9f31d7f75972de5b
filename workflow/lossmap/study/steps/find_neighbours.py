"""Embeddings, manifest -> each image's nearest neighbours before and after the connector."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lossmap.errors import LossmapError
from lossmap.measures.equality import compared_items
from lossmap.measures.neighbours import rank_neighbours
from lossmap.store.index import open_store
from lossmap.study.neighbour_lists import STAGES, NeighbourLists, write_lists
from lossmap.study.specs import FindNeighbours


def run(*, embeddings: Path, lists: Path, spec: FindNeighbours, images: Path | None = None, threads: int = 1) -> None:
    """Find the nearest neighbours of every image among all images, on mean-pooled embeddings.

    images: the manifest, whose digests tell which images have equal pixels; without it, equal embeddings do. spec: k,
    how many; metrics, a list of euclidean and cosine; equal_images: "drop", of images that are equal only the first is
    ranked, or "count", all are. Runs on the GPU where there is one.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store = open_store(embeddings)
    means, ids = {stage: store[f"{stage}_mean"].values for stage in STAGES}, store["image_id"].values
    pixels = None if images is None else pd.read_parquet(images).set_index("image_id")["pixels_sha256"].loc[ids]
    compared = compared_items(means["pre"], spec.equal_images, pixels)
    copy, ranked = compared.first != np.arange(len(ids)), ids[compared.items]
    if spec.k >= len(ranked):
        raise LossmapError(
            f"{embeddings}: {copy.sum()} of {len(ids)} images are copies of another; the {len(ranked)} left have fewer "
            f"than {spec.k} neighbours each. Ask for fewer (k, recall, overlap_k), add images, or set equal_images: "
            "count."
        )
    found = NeighbourLists(ranked, dict(zip(ids[copy], ids[compared.first[copy]], strict=True)), {})
    for stage in STAGES:
        for metric in spec.metrics:
            mine = means[stage][compared.rows]
            found.rankings[metric, stage] = rank_neighbours(mine, spec.k, metric, device=device)
    write_lists(lists, found)
