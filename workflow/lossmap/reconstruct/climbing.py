"""A ladder of reconstructors in memory: every decoder, on every share of the training images, of one connector."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from lossmap.reconstruct.evaluation import Reconstructor, reconstructor_of
from lossmap.reconstruct.learning import TrainingSettings, train_network
from lossmap.reconstruct.linear import fit_linear_decoders
from lossmap.reconstruct.pairs import Pairs
from lossmap.reconstruct.split import split_images


class TrainedDecoder(NamedTuple):
    """A decoder with its weights. architecture: see `save_reconstructor`. history: see `Training`; of a network."""

    reconstructor: Reconstructor
    architecture: dict
    history: list[dict] | None = None


def climb(
    pairs: Pairs,
    networks: Mapping[str, Mapping[str, Any]],
    shares: list[int],
    held_out: float,
    seed: int,
    settings: TrainingSettings,
) -> Iterator[TrainedDecoder]:
    """mean, position_mean and ridge, then the networks, each begun as ridge; smallest share first.

    Parameters: networks, name -> what `build_network` takes; shares and held_out, see `split_images`. It runs on the
        device of the pairs; torch's random state is what it was afterwards.
    Raises: LossmapError as `split_images`, `fit_linear_decoders` and `train_network`.
    """
    split = split_images(len(pairs), held_out, shares, seed)
    for share, module, architecture in fit_linear_decoders(pairs, split):
        kind = architecture["kind"]
        place = f"{kind} on {share}% of the images"
        yield TrainedDecoder(reconstructor_of(place, kind, share, module.to(pairs.device), architecture), architecture)
        if kind != "ridge" or not networks:
            continue
        gpu = pairs.device.type != "cpu"
        accelerator = Accelerator(cpu=not gpu, mixed_precision="bf16" if gpu else "no")
        for name, network in networks.items():
            with torch.random.fork_rng():
                learned = train_network(pairs, split, share, network, module, seed, settings, accelerator)
            place = f"{name} on {share}% of the images"
            reconstructor = reconstructor_of(place, name, share, learned.module, learned.architecture)
            yield TrainedDecoder(reconstructor, learned.architecture, learned.training.history)
