"""Weights on disk: safetensors with a JSON description inside, written whole or not at all, never pickled."""

import hashlib
import json
import os
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, device, nn

from lossmap.errors import LossmapError
from lossmap.reconstruct.linear import build_linear
from lossmap.reconstruct.networks import BeyondRidge, build_network
from lossmap.reconstruct.ragged import Sizes
from lossmap.reconstruct.ragged_linear import build_ragged_linear
from lossmap.reconstruct.ragged_networks import build_ragged_network
from lossmap.reconstruct.specs import LINEAR

FORMAT = "lossmap-reconstructor/1"
# Told beside what builds a network: what it begins from, and how its training went.
TOLD = ("held_out_error", "halfway_error", "passes", "learning_rate", "trials", "converged")


def save_tensors(path: Path, tensors: dict[str, Tensor], description: dict) -> None:
    """Write tensors and their JSON description to one safetensors file, replacing it in one go."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    tensors = {name: values.detach().contiguous() for name, values in tensors.items()}
    try:
        # One key: of several, safetensors writes them in any order, and equal content would give unequal files.
        save_file(tensors, partial, metadata={"lossmap": json.dumps(description)})
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):  # a full disk comes as text
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
        raise
    os.replace(partial, path)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """What `save_tensors` wrote: tensors by name, and the description.

    Raises: LossmapError if the file can't be read or was not written here.
    """
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})["lossmap"])
            return {name: file.get_tensor(name) for name in file.keys()}, description  # noqa: SIM118, this is no dict
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise LossmapError(
            f"{path}: can't be read as weights of Lossmap ({error!r}). Delete it and run again."
        ) from None


def save_reconstructor(
    module: nn.Module, architecture: dict, statistics_digest: str, path: Path, made: dict | None = None
) -> None:
    """Write a reconstructor: its weights, how to build it, and which statistics its embeddings were standardised with.

    Parameters: architecture, JSON: what `build_network` or, for a linear decoder, `build_linear` takes, and
        "pre_shape", "post_shape", "blocks" (lists; None where tokens have no place), or of ragged embeddings what
        `Sizes.plain` gives ("ragged": true, ...), "held_out_error", its mean squared error on the held-out images, and
        of a `BeyondRidge` "ridge", {"file": name in the same folder, "sha256": of its content}; statistics_digest,
        `Statistics.digest`; made, JSON for readers: its key and provenance. Of a `BeyondRidge` the network alone is
        written: ridge has its own file.
    """
    description = {"format": FORMAT, "architecture": architecture, "statistics": statistics_digest, **(made or {})}
    learned = module.network if isinstance(module, BeyondRidge) else module
    save_tensors(path, learned.state_dict(), description)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_reconstructor(
    path: Path, statistics_digest: str | None = None, ridges: dict[str, nn.Module] | None = None
) -> tuple[nn.Module, dict]:
    """Read a reconstructor, and the ridge file that it begins from, if it does.

    Parameters: statistics_digest, of the statistics that its input is standardised with and its output is compared in.
        ridges, by digest of their files: those that were read before; ridge can take gigabytes, so those who read
        several networks give one dict, which is filled.
    Returns: the module in eval mode, (B, tokens, width) -> (B, patches, features), and its architecture.
    Raises: LossmapError if a file can't be read, was made with other statistics, its weights don't fit the
        architecture that it states, or its ridge is not the one that it was trained with.
    """
    path = Path(path)
    tensors, description = load_tensors(path)
    if description.get("format") != FORMAT:
        raise LossmapError(f"{path}: its format is {description.get('format')!r}, wanted {FORMAT}. Make it anew.")
    found = description["statistics"]
    if statistics_digest is not None and statistics_digest != found:
        raise LossmapError(
            f"{path}: was trained on embeddings standardised with other statistics ({found[:12]}, not"
            f" {statistics_digest[:12]}). Delete it and run again: their losses are on different scales."
        )
    architecture = description["architecture"]
    module = _build(architecture)
    try:
        module.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise LossmapError(
            f"{path}: its weights are not those of its architecture: {error} Delete it and run again."
        ) from None
    if "ridge" in architecture:
        ridges = {} if ridges is None else ridges
        wanted = architecture["ridge"]["sha256"]
        if wanted not in ridges:
            ridges[wanted] = _ridge(path, architecture["ridge"], statistics_digest)
        module = BeyondRidge(ridges[wanted], module)
    return module.eval(), architecture


def _ridge(path, ridge, statistics_digest):
    """The ridge that the network at a path begins from."""
    beside = path.with_name(ridge["file"])
    if not beside.is_file() or file_digest(beside) != ridge["sha256"]:
        found = "has another content" if beside.is_file() else "is missing"
        raise LossmapError(
            f"{path}: was trained from {beside}, which {found}. Put the file back, or delete {path} and run again."
        )
    return load_reconstructor(beside, statistics_digest)[0]


def _build(architecture: dict) -> nn.Module:
    settings = dict(architecture)
    if settings.get("ragged"):
        sizes = Sizes.taken_from(settings)
        if settings["kind"] in LINEAR:
            return build_ragged_linear(settings, sizes)
        for told in ("ridge", *TOLD):
            settings.pop(told, None)
        with device("meta"):
            return build_ragged_network(settings, sizes)
    shapes = [settings.pop(name) for name in ("pre_shape", "post_shape", "blocks")]
    if settings["kind"] in LINEAR:
        return build_linear(settings, *shapes)
    for told in ("ridge", *TOLD):
        settings.pop(told, None)
    with device("meta"):  # no random weights, which take long for large networks
        return build_network(settings, *shapes)
