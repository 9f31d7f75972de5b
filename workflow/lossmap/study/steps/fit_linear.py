"""Embeddings, statistics -> the linear decoders of the ladder, for a model's connector and each control."""

from pathlib import Path

import torch

from lossmap.errors import LossmapError
from lossmap.reconstruct.linear import fit_linear_decoders
from lossmap.reconstruct.pairs import pairs_of
from lossmap.reconstruct.saving import save_reconstructor
from lossmap.reconstruct.specs import canonical
from lossmap.reconstruct.split import split_images
from lossmap.reconstruct.statistics import Statistics
from lossmap.study.specs import FitLinear
from lossmap.vlm.stored import open_embeddings


def run(*, embeddings: Path, reconstructors: Path, spec: FitLinear, threads: int = 1) -> None:
    """Fit mean, position_mean and ridge in closed form: <reconstructors>/<connector>/<decoder>-<share>.safetensors.

    embeddings: index of the training store. reconstructors: the model's folder, where measure_statistics has put
    <connector>/statistics.safetensors. spec: connectors (name: {kind, settings}), shares (percent), held_out, seed.
    Runs on the GPU where there is one.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store = open_embeddings(embeddings, device)
    for name, connector in spec.connectors.items():
        path = reconstructors / name / "statistics.safetensors"
        statistics = Statistics.load(path)
        statistics.check_store(embeddings)
        if (statistics.connector, statistics.seed) != (canonical(connector), spec.seed):
            raise LossmapError(
                f"{path}: the statistics are of connector {statistics.connector} with seed {statistics.seed}; wanted "
                f"{canonical(connector)} with seed {spec.seed}. Delete it and run again."
            )
        pairs = pairs_of(store, statistics, device)
        split = split_images(len(pairs), spec.held_out, spec.shares, spec.seed)
        for share, module, architecture in fit_linear_decoders(pairs, split):
            path = reconstructors / name / f"{architecture['kind']}-{share}.safetensors"
            save_reconstructor(module, architecture, statistics.digest, path)
            del module  # it can take gigabytes, and so can the next
