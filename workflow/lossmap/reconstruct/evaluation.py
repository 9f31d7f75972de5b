"""Reconstructors on disk, run on the images of a store that trained nothing."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lossmap.errors import LossmapError
from lossmap.measures.patch_loss import PatchLosses, patch_losses
from lossmap.reconstruct.networks import parameters
from lossmap.reconstruct.pairs import Pairs
from lossmap.reconstruct.saving import file_digest, load_reconstructor
from lossmap.reconstruct.statistics import Statistics


@dataclass(frozen=True)
class Reconstructor:
    """A rung of the ladder, trained on one share of the images.

    parameters: of a network, its own; ridge, to which it adds, has more. held_out_error: mean squared error,
    standardised. converged and the rest: see `training.Training`; what is solved in closed form has converged, and
    has no passes nor rate (nan).
    """

    path: Path
    rung: str
    share: int
    kind: str
    parameters: int
    held_out_error: float
    converged: bool
    halfway_error: float
    passes: float
    learning_rate: float
    module: nn.Module


def load_rungs(
    folder: Path, rungs: list[str], shares: list[int], statistics: Statistics, device: str = "cpu"
) -> list[Reconstructor]:
    """All reconstructors <folder>/<rung>-<share>.safetensors of one connector, rung by rung.

    Raises: LossmapError if a file can't be read, belongs to other statistics, or doesn't say its held-out error.
    """
    found, ridges = [], {}
    for rung in rungs:
        for share in shares:
            path = folder / f"{rung}-{share}.safetensors"
            module, architecture = load_reconstructor(path, statistics.digest, ridges)
            if architecture["kind"] == "ridge":
                ridges[file_digest(path)] = module  # networks that begin from it share it: it can take gigabytes
            if "held_out_error" not in architecture:
                raise LossmapError(f"{path}: doesn't say its held-out error. Delete it and run again.")
            about = rung, share, architecture["kind"], parameters(getattr(module, "network", module))
            how = [architecture["held_out_error"], architecture.get("converged", True)]
            how += [architecture.get(name, math.nan) for name in ("halfway_error", "passes", "learning_rate")]
            found.append(Reconstructor(path, *about, *how, module.to(device).eval()))
    return found


def evaluate(
    pairs: Pairs, reconstructors: list[Reconstructor], batch_size: int
) -> Iterator[tuple[slice, list[PatchLosses]]]:
    """What each reconstructor misses of each patch, `batch_size` images at a time, in order.

    Yields: which images, and the losses, (images, patches) each, of every reconstructor. The batch size changes nothing
    but the rounding of float32 products.
    Raises: LossmapError if a reconstruction is not finite (file and image are named).
    """
    first = 0
    with torch.inference_mode():
        for post, pre in pairs.blocks(range(len(pairs)), batch_size):
            losses = []
            for reconstructor in reconstructors:
                predicted = reconstructor.module(post)
                finite = predicted.isfinite().flatten(1).all(dim=1)
                if not finite.all():
                    image = pairs.store["image_id"].values[first + int(finite.int().argmin())]
                    raise LossmapError(
                        f"{reconstructor.path}: its reconstruction of image {image} is not finite (NaN or infinity): "
                        "its weights are damaged, or training went astray. Delete it and run again."
                    )
                losses.append(patch_losses(pre, predicted))
            yield slice(first, first + len(pre)), losses
            first += len(pre)
