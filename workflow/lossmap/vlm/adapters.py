"""A LoRA adapter's folder: its base, and whether it is whole. Importing it needs neither torch nor peft."""

import re
from dataclasses import dataclass
from pathlib import Path

from lossmap.errors import LossmapError
from lossmap.vlm.foreign_formats import ADAPTER, foreign_format, json_object

ADAPTER_WEIGHTS = "adapter_model.safetensors"
COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
# Ways to begin that change the base's weights, too, so that the adapter alone is not the difference to its base.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Settings of LoRA by which the adapter is no sum of matrices and weights.
NOT_MERGED = ("layer_replication", "alora_invocation_tokens", "target_parameters", "trainable_token_indices")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter. folder: its own. base: folder or hub id of the checkpoint that it was trained on. revision: of a
    hub id, the commit."""

    folder: Path
    base: str | Path
    revision: str | None


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER).is_file()


def read_adapter(folder: Path) -> Adapter:
    """What an adapter's folder holds.

    Raises: LossmapError if it is no LoRA adapter or one that can't be merged, if its weights are missing or pickled, or
        if its base is not here, is itself an adapter, or is on the hub and not pinned.
    """
    path = folder / ADAPTER
    content = json_object(path)
    if not content:
        raise LossmapError(f"{path}: can't be read as an adapter's configuration. Get the file again.")
    foreign = foreign_format(folder)
    if foreign:
        raise LossmapError(foreign)
    begun = str(content.get("init_lora_weights")).lower()
    if begun.startswith(CHANGES_BASE):
        raise LossmapError(
            f"{path}: init_lora_weights is {content['init_lora_weights']!r}, which changes the base's weights, too."
            " Save the adapter with path_initial_model_for_weight_conversion, which makes it an ordinary LoRA adapter."
        )
    odd = [name for name in NOT_MERGED if content.get(name)]
    if odd:
        raise LossmapError(
            f"{path}: {odd[0]} is set, with which Lossmap can't merge the adapter into its base. Merge it (peft's"
            " merge_and_unload, then save_pretrained with the processor) and give that folder."
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        pickled = sorted(file.name for ending in ("bin", "pt", "pth") for file in folder.glob(f"*.{ending}"))
        found = f", only {pickled[0]}, a pickled file, which can run code when it is read" if pickled else ""
        remedy = "Save the adapter anew with peft's save_pretrained, which writes it" if pickled else "Add it"
        raise LossmapError(f"{folder}: has no {ADAPTER_WEIGHTS}{found}. {remedy}.")
    return Adapter(folder, *_base_of(path, content))


def _base_of(path: Path, content: dict) -> tuple[str | Path, str | None]:
    """The base's folder, or its hub id and commit."""
    base, revision = content.get("base_model_name_or_path"), content.get("revision")
    if not isinstance(base, str) or not base:
        raise LossmapError(
            f"{path}: has no base_model_name_or_path, which says what model it adapts. Write the base's folder there,"
            " or its hub id, and as revision the commit."
        )
    found = path.parent / base  # base itself, where that is absolute
    if found.is_dir():
        if is_adapter(found):
            raise LossmapError(
                f"{path}: base_model_name_or_path is {base}, which is an adapter, too. Merge that one (peft's"
                " merge_and_unload, then save_pretrained with the processor) and write its folder there."
            )
        return found, None
    if not HUB_ID.fullmatch(base) or base.startswith("."):
        raise LossmapError(
            f"{path}: base_model_name_or_path is {base}, and there is no such folder. Write where the base lies,"
            " absolute or as seen from the adapter's folder, or its hub id, and as revision the commit."
        )
    if not isinstance(revision, str) or not COMMIT.fullmatch(revision):
        said = f"revision is {revision!r}" if revision else "there is no revision"
        raise LossmapError(
            f"{path}: base_model_name_or_path is {base}, no folder here; as a hub id it needs a commit, and {said}."
            " Write the commit that the adapter was trained on as revision, 40 hex digits (the hub's page of the model"
            " lists them under Files, History), or download the base and write its folder as base_model_name_or_path."
        )
    return base, revision
