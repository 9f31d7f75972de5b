"""Embeddings of the training set -> mean and standard deviation per feature, for each connector."""

from pathlib import Path

import torch

from lossmap.reconstruct.measuring import measure_statistics
from lossmap.reconstruct.statistics import store_digest
from lossmap.study.specs import MeasureStatistics
from lossmap.vlm.stored import open_embeddings


def run(*, embeddings: Path, reconstructors: Path, spec: MeasureStatistics, threads: int = 1) -> None:
    """Measure the statistics that everything downstream standardises with: <reconstructors>/<connector>/statistics.

    One pass over the store for pre and post as stored; where there are controls made from pre, one more for all of
    them, for they take standardised pre. spec: connectors (name: {kind, settings}), seed. Runs on the GPU where there
    is one.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store = open_embeddings(embeddings, device)
    found = measure_statistics(store, spec.connectors, spec.seed, store_digest(embeddings), device)
    for name, statistics in found.items():
        folder = reconstructors / name
        folder.mkdir(parents=True, exist_ok=True)
        statistics.save(folder / "statistics.safetensors")
