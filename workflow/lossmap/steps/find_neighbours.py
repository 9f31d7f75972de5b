"""Embeddings -> each image's nearest neighbours before and after the connector."""

from pathlib import Path

import torch

from lossmap.measures.neighbours import nearest_neighbours
from lossmap.neighbour_lists import STAGES, write_lists
from lossmap.store import open_store


def run(*, embeddings: Path, lists: Path, spec: dict, threads: int = 1) -> None:
    """Find the nearest neighbours of every image among all images, on mean-pooled embeddings.

    spec: k, how many; metrics, a list of l2 and ip. Runs on the GPU where there is one.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store = open_store(embeddings)
    found = {}
    for stage in STAGES:
        means = store[f"{stage}_mean"].values
        for metric in spec["metrics"]:
            found[metric, stage] = nearest_neighbours(means, spec["k"], metric=metric, device=device)
    write_lists(lists, store["image_id"].values, found)
