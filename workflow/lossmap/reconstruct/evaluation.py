"""Reconstructors on disk, run on the images of a store that trained nothing."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lossmap.errors import LossmapError
from lossmap.measures.patch_loss import PatchLosses, patch_losses
from lossmap.reconstruct.networks import parameters
from lossmap.reconstruct.pairs import Pairs
from lossmap.reconstruct.places import places
from lossmap.reconstruct.ragged import Ragged, stacked
from lossmap.reconstruct.ragged_networks import OfRagged
from lossmap.reconstruct.saving import file_digest, load_reconstructor
from lossmap.reconstruct.statistics import Statistics
from lossmap.store.patch_losses import LOSSES


@dataclass(frozen=True)
class Reconstructor:
    """A decoder of the ladder, trained on one share of the images. place: its file, or what else messages call it.

    parameters: of a network, its own; ridge, to which it adds, has more. held_out_error: mean squared error,
    standardised. converged and the rest: see `training.Training`; what is solved in closed form has converged, and
    has no passes nor rate (nan).
    """

    place: str
    name: str
    share: int
    kind: str
    parameters: int
    held_out_error: float
    converged: bool
    halfway_error: float
    passes: float
    learning_rate: float
    module: nn.Module


def load_decoders(
    folder: Path, decoders: list[str], shares: list[int], statistics: Statistics, device: str = "cpu"
) -> list[Reconstructor]:
    """All reconstructors <folder>/<decoder>-<share>.safetensors of one connector, decoder by decoder.

    Raises: LossmapError if a file can't be read, belongs to other statistics, or doesn't say its held-out error.
    """
    found: list[Reconstructor] = []
    ridges: dict[str, nn.Module] = {}
    for decoder in decoders:
        for share in shares:
            path = folder / f"{decoder}-{share}.safetensors"
            module, architecture = load_reconstructor(path, statistics.digest, ridges)
            if architecture["kind"] == "ridge":
                ridges[file_digest(path)] = module  # networks that begin from it share it: it can take gigabytes
            if "held_out_error" not in architecture:
                raise LossmapError(f"{path}: doesn't say its held-out error. Delete it and run again.")
            found.append(reconstructor_of(str(path), decoder, share, module.to(device), architecture))
    return found


def reconstructor_of(place: str, name: str, share: int, module: nn.Module, architecture: dict) -> Reconstructor:
    """A module with what its architecture says of its training (see `save_reconstructor`)."""
    return Reconstructor(
        place=place,
        name=name,
        share=share,
        kind=architecture["kind"],
        parameters=parameters(getattr(module, "network", module)),
        held_out_error=architecture["held_out_error"],
        converged=architecture.get("converged", True),
        **{key: architecture.get(key, math.nan) for key in ("halfway_error", "passes", "learning_rate")},
        module=module.eval(),
    )


def best_of(decoders: list[Reconstructor]) -> Reconstructor:
    """The one of the lowest held-out error, of those that converged: the others are no evidence."""
    return min((one for one in decoders if one.converged), key=lambda one: one.held_out_error)


def evaluate(
    pairs: Pairs, reconstructors: list[Reconstructor], batch_size: int
) -> Iterator[tuple[slice, list[PatchLosses]]]:
    """What each reconstructor misses of each patch, `batch_size` images at a time, in order.

    Yields: which images, and the losses, (images, patches) each, of every reconstructor; of ragged embeddings each is a
    `Ragged` of the targets, (patches,). The batch size changes nothing but the rounding of float32 products.
    Raises: LossmapError if a reconstruction is not finite (file and image are named), or a reconstructor is of images
        that are all alike and these differ, or the other way round.
    """
    for reconstructor in reconstructors:
        check_layout(reconstructor.module, pairs.ragged, reconstructor.place)
    first = 0
    with torch.inference_mode():
        for post, pre in pairs.blocks(range(len(pairs)), batch_size):
            losses = []
            for reconstructor in reconstructors:
                predicted = reconstructor.module(post)
                finite = _finite(predicted)
                if not finite.all():
                    image = pairs.store["image_id"].values[first + int(finite.int().argmin())]
                    raise LossmapError(
                        f"{reconstructor.place}: its reconstruction of image {image} is not finite (NaN or infinity): "
                        "its weights are damaged, or training went astray. Delete it and run again."
                    )
                losses.append(_losses(pre, predicted))
            yield slice(first, first + len(pre)), losses
            first += len(pre)


def check_layout(module: nn.Module, ragged: bool, place: str) -> None:
    """Raises: LossmapError unless a module takes what these embeddings are."""
    if isinstance(getattr(module, "network", module), OfRagged) != ragged:
        differ, alike = "whose images differ in layout", "whose images are all alike"
        found, wanted = (differ, alike) if ragged else (alike, differ)
        raise LossmapError(
            f"{place}: reconstructs embeddings {wanted}, and these are embeddings {found}: another view setting. Give"
            " embeddings of the view that it was trained on, or train one on these."
        )


def _finite(predicted: torch.Tensor | Ragged) -> torch.Tensor:
    """(images,) whether all is finite."""
    if not isinstance(predicted, Ragged):
        return predicted.isfinite().flatten(1).all(dim=1)
    bad = (~predicted.rows.isfinite().all(dim=1)).int().cpu().numpy()
    return torch.from_numpy(np.add.reduceat(bad, predicted.starts) == 0)


def _losses(pre: Any, predicted: Any) -> PatchLosses:
    if not isinstance(pre, Ragged):
        return patch_losses(pre, predicted)
    found = patch_losses(pre.rows[None], predicted.rows[None])
    return PatchLosses(*(pre.with_rows(values[0]) for values in found))  # type: ignore[arg-type]


def measure_losses(pairs: Pairs, reconstructors: list[Reconstructor], batch_size: int) -> Iterator[dict[str, Any]]:
    """The losses of `evaluate` as arrays, batch by batch: each of `LOSSES` (reconstructors, images, patches), and
    pre_norm (images, patches).

    Of ragged embeddings: (reconstructors, patches) and (patches,), all rows of pre of the images, one image after
    another, NaN for those that are no target; and shapes, of each image.
    """
    for images, found in evaluate(pairs, reconstructors, batch_size):
        if pairs.ragged:
            yield _ragged_losses(pairs, images, found)
            continue
        batch = {name: torch.stack([getattr(loss, name) for loss in found]).cpu().numpy() for name in LOSSES}
        yield batch | {"pre_norm": found[0].norm.cpu().numpy()}


def _ragged_losses(pairs: Pairs, images: slice, found: list[Any]) -> dict[str, Any]:
    """Losses of targets -> of all rows of pre."""
    shapes = [pairs.images.shape(image) for image in range(images.start, images.stop)]
    counts = [shape.patches for shape in shapes]
    rows = stacked([places(pairs.connector.shape(shape)).targets for shape in shapes], counts).numpy()

    def spread(values: torch.Tensor) -> np.ndarray:
        everywhere = np.full((*values.shape[:-1], sum(counts)), np.nan)
        everywhere[..., rows] = values.cpu().numpy()
        return everywhere

    batch: dict[str, Any] = {name: spread(torch.stack([getattr(loss, name).rows for loss in found])) for name in LOSSES}
    return batch | {"pre_norm": spread(found[0].norm.rows), "shapes": shapes}


def _ragged_means(batch: dict[str, Any], features: int) -> dict[str, np.ndarray]:
    counts = [shape.patches for shape in batch["shapes"]]
    starts = np.cumsum([0, *counts[:-1]])
    targets = np.add.reduceat(np.isfinite(batch["pre_norm"]), starts, dtype=np.int64)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.where(np.isnan(values), 0, values), starts, axis=-1) / targets

    means = {name: mean(batch[name]) for name in LOSSES}
    absolute, variance = mean(np.abs(batch["norm_difference"])), mean(batch["pre_norm"] ** 2) / features
    return {**means, "absolute_norm_difference": absolute, "variance": variance}


def image_means(batch: dict[str, Any], features: int) -> dict[str, np.ndarray]:
    """Means over the patches of each image of what `measure_losses` gives: losses (reconstructors, images), and
    variance (images,), which squared errors are a share of. features: of a patch. Of ragged embeddings, over
    targets."""
    if "shapes" in batch:
        return _ragged_means(batch, features)
    means = {name: batch[name].mean(axis=-1) for name in LOSSES}
    absolute = np.abs(batch["norm_difference"]).mean(axis=-1)
    variance = (batch["pre_norm"] ** 2).mean(axis=-1) / features
    return {**means, "absolute_norm_difference": absolute, "variance": variance}
