"""Weights on disk: safetensors with a JSON description inside, written whole or not at all, never pickled."""

import json
import os
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, device, nn

from lossmap.errors import LossmapError
from lossmap.reconstruct.linear import LINEAR, build_linear
from lossmap.reconstruct.networks import build_network

FORMAT = "lossmap-reconstructor/1"


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


def save_reconstructor(module: nn.Module, architecture: dict, statistics_digest: str, path: Path) -> None:
    """Write a reconstructor: its weights, how to build it, and which statistics its embeddings were standardised with.

    Parameters: architecture, JSON: what `build_network` or, for a linear rung, `build_linear` takes, and "pre_shape",
        "post_shape", "blocks" (lists; None where tokens have no place) and "held_out_error", its mean squared error on
        the held-out images; statistics_digest, `Statistics.digest`.
    """
    description = {"format": FORMAT, "architecture": architecture, "statistics": statistics_digest}
    save_tensors(path, module.state_dict(), description)


def load_reconstructor(path: Path, statistics_digest: str | None = None) -> tuple[nn.Module, dict]:
    """Read a reconstructor.

    Parameters: statistics_digest, of the statistics that its input is standardised with and its output is compared in.
    Returns: the module in eval mode, (B, tokens, width) -> (B, patches, features), and its architecture.
    Raises: LossmapError if the file can't be read, was made with other statistics, or its weights don't fit the
        architecture that it states.
    """
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
    return module.eval(), architecture


def _build(architecture: dict) -> nn.Module:
    settings = dict(architecture)
    shapes = [settings.pop(name) for name in ("pre_shape", "post_shape", "blocks")]
    if settings["kind"] in LINEAR:
        return build_linear(settings, *shapes)
    settings.pop("held_out_error", None)
    with device("meta"):  # no random weights, which take long for large networks
        return build_network(settings, *shapes)
