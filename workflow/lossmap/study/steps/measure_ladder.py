"""Embeddings, reconstructors -> what every decoder leaves of each image, for the model's connector and each control."""

from pathlib import Path

import torch

from lossmap.reconstruct.evaluation import load_decoders
from lossmap.reconstruct.ladder_rows import measure_ladder
from lossmap.reconstruct.statistics import Statistics
from lossmap.study.specs import MeasureLadder
from lossmap.vlm.stored import open_embeddings


def run(*, embeddings: Path, reconstructors: Path, ladder: Path, spec: MeasureLadder, threads: int = 1) -> None:
    """Measure one model's ladder on one data set: a row per connector, decoder, share of training images, and image.

    reconstructors: the model's folder, with <connector>/statistics.safetensors and
    <connector>/<decoder>-<share>.safetensors. spec: dataset, model, connectors (name: decoders), shares, batch_size.
    The embeddings are read once per connector. Runs on the GPU where there is one.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store = open_embeddings(embeddings, device)
    climbed = _climbed(reconstructors, spec.connectors, spec.shares, device)
    rows = measure_ladder(store, climbed, spec.dataset, spec.model, spec.batch_size, device)
    rows.to_parquet(ladder, index=False)


def _climbed(reconstructors, connectors, shares, device):
    """Name, statistics and decoders of each connector, read when it is its turn: they can take gigabytes."""
    for name, decoders in connectors.items():
        statistics = Statistics.load(reconstructors / name / "statistics.safetensors")
        yield name, statistics, load_decoders(reconstructors / name, decoders, shares, statistics, device)
