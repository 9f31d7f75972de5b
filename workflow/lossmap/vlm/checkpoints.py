"""A checkpoint's folder: a local one as it is, or a hub's, of which only the files needed are downloaded."""

import json
import os
import re
from pathlib import Path

from lossmap.errors import LossmapError
from lossmap.vlm.adapters import COMMIT, Adapter, is_adapter, read_adapter
from lossmap.vlm.families import Family, is_vision_key, read_family
from lossmap.vlm.foreign_formats import ADAPTER, foreign_format

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model"]
_PACKAGE = Path(__file__).resolve().parents[1]
# Where Snakefile, config.yaml and the shipped models lie: the repository, or a folder of the installed package.
CHECKOUT = _PACKAGE / "checkout" if (_PACKAGE / "checkout").is_dir() else _PACKAGE.parents[1]
SHIPPED = "workflow/"
# Configurations of the paper's checkpoints, so that they are known without a network: <hub id>/<commit>/
CONFIGURATIONS = CHECKOUT / "workflow" / "studies" / "configurations"


def local_checkpoint(checkpoint: str | Path) -> Path:
    """Where a local checkpoint lies: as given, seen from the working folder; if there is no such folder, one whose path
    begins with workflow/ is the one that is shipped with this checkout."""
    folder = Path(checkpoint)
    return CHECKOUT / folder if str(checkpoint).startswith(SHIPPED) and not folder.is_dir() else folder


def resolve_checkpoint(checkpoint: str | Path, revision: str | None = None, vision_only: bool = True) -> Path:
    """The folder that holds a checkpoint's configuration, processor and weights, downloaded first if it's a hub id.
    Of an adapter's folder it is that of its base; `adapter_of` says what is to be merged.

    Of a hub checkpoint the small JSON files come first, then only those weight files that the index maps needed tensors
    to. huggingface_hub's own environment variables apply: HF_HOME (where the cache lies), HF_TOKEN, HF_ENDPOINT,
    HF_HUB_OFFLINE.

    Parameters: checkpoint, a local folder or a hub id; revision, for a hub id the commit to use, 40 hex digits;
        vision_only, whether the weights of the language model may be left out.
    Raises: LossmapError if something is missing, unreachable, not permitted, not pinned, or not safetensors.
    """
    folder = local_checkpoint(checkpoint)
    if is_adapter(folder):
        adapter = read_adapter(folder)
        return resolve_checkpoint(adapter.base, adapter.revision, vision_only)
    if not folder.is_dir():
        folder = _download(str(checkpoint), revision, vision_only)
    check_files(folder, vision_only)
    return folder


def adapter_of(checkpoint: str | Path) -> Adapter | None:
    """The adapter, where a checkpoint is an adapter's folder. Raises: LossmapError as `read_adapter`."""
    folder = local_checkpoint(checkpoint)
    return read_adapter(folder) if is_adapter(folder) else None


def folders_of(checkpoint: str | Path) -> list[Path]:
    """The local folders whose files make a checkpoint: its own, and of an adapter that of its base, where it is here.
    Raises nothing: what is wrong with them is told elsewhere."""
    folder = local_checkpoint(checkpoint)
    try:
        adapter = adapter_of(folder)
    except LossmapError:
        return [folder]
    return [folder] if adapter is None or adapter.revision else [folder, Path(adapter.base)]


def fetch_configuration(checkpoint: str | Path, revision: str | None = None) -> Path:
    """The folder that holds a checkpoint's configuration and its image processor's; weights may be missing.

    Parameters: as `resolve_checkpoint`. Of a hub checkpoint, only these small files are downloaded; of the paper's,
        they are shipped. Nothing is checked (`check_configuration` does).
    Raises: LossmapError if it is unreachable, not permitted, or not pinned.
    """
    folder = local_checkpoint(checkpoint)
    if is_adapter(folder):
        adapter = read_adapter(folder)
        return fetch_configuration(adapter.base, adapter.revision)
    if folder.is_dir():
        return folder
    shipped = CONFIGURATIONS / checkpoint / (revision or "")
    if revision and shipped.is_dir():
        return shipped
    _check_hub_id(str(checkpoint), revision)
    return _snapshot(str(checkpoint), revision, ["config.json", ADAPTER, *PROCESSORS])


def known_configuration(checkpoint: str, revision: str | None) -> Path | None:
    """The folder with the configuration of a hub checkpoint's commit, if it is known without asking the hub: shipped
    with Lossmap, or in the hub's cache here."""
    if not revision:
        return None
    cached = _hub_cache() / f"models--{checkpoint.replace('/', '--')}" / "snapshots" / revision
    return next((folder for folder in (CONFIGURATIONS / checkpoint / revision, cached) if _is_known(folder)), None)


def configuration_here(checkpoint: str, revision: str | None = None) -> Path | None:
    """The folder with a checkpoint's configuration, of an adapter its base's; None where it is not here, or the adapter
    can't be used."""
    folder = local_checkpoint(checkpoint)
    if is_adapter(folder):
        try:
            adapter = read_adapter(folder)
        except LossmapError:
            return None
        return configuration_here(str(adapter.base), adapter.revision)
    return folder if folder.is_dir() else known_configuration(checkpoint, revision)


def _is_known(folder: Path) -> bool:
    """Whether a folder says what its model is; what else is missing may be still to come from the hub."""
    processor = any((folder / name).is_file() for name in PROCESSORS)
    return (folder / ADAPTER).is_file() or (processor and (folder / "config.json").is_file())


def _hub_cache() -> Path:
    """Where huggingface_hub keeps what it downloaded. It may be missing where Snakemake itself runs."""
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", os.path.join(caches, "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", os.path.join(home, "hub"))).expanduser()


def check_files(folder: Path, vision_only: bool = True) -> None:
    """Raises: LossmapError if a checkpoint folder lacks a file that is needed, as `weight_files`, or a weight file."""
    for problem in missing_weights(folder, vision_only):
        raise LossmapError(problem)


def missing_weights(folder: Path, vision_only: bool = True) -> list[str]:
    """A line that names the weight files of the index that are not there, if there are such.

    Raises: LossmapError as `weight_files`.
    """
    missing = [name for name in weight_files(folder, vision_only) if not (folder / name).is_file()]
    if not missing:
        return []
    names = ", ".join(missing[:10]) + f" and {len(missing) - 10} more" * (len(missing) > 10)
    return [f"{folder}: weight files that {INDEX} names are missing: {names}. Add them."]


def weight_files(folder: Path, vision_only: bool = True) -> list[str]:
    """Names of the safetensors files of a checkpoint folder that hold needed tensors, sorted.

    Raises: LossmapError if the folder lacks config.json, a processor's configuration or safetensors weights, or if its
        index names no tensor of the vision side.
    """
    _, family = check_configuration(folder)
    if (folder / INDEX).is_file():
        return sorted(set(_needed_weights(folder, family, vision_only).values()))
    if (folder / SINGLE).is_file():
        return [SINGLE]
    if any(folder.glob("*.gguf")):
        raise LossmapError(
            f"{folder}: holds weights as GGUF only, rounded for another program. Give the checkpoint that they were"
            " made of, as safetensors."
        )
    if any(folder.glob("*.bin")) or any(folder.glob("*.pth")):
        raise LossmapError(
            f"{folder}: holds weights as pickled files (.bin, .pth) only, which can run code when they are read."
            " Convert them to safetensors with a tool you trust, or use a checkpoint that has them."
        )
    raise LossmapError(
        f"{folder}: has no {SINGLE} and no {INDEX}. Complete the checkpoint; if it was published as pickled weights"
        " (.bin) only, use one that has safetensors."
    )


def check_configuration(folder: Path) -> tuple[str, Family]:
    """The model type and family of a checkpoint folder that has what there must be beside weights.

    Raises: LossmapError if it is of another format, of no known family, or quantised, or lacks the configuration of the
        model or of its image processor.
    """
    foreign = foreign_format(folder)
    if foreign:
        raise LossmapError(foreign)
    if is_adapter(folder):  # of the hub: a folder's is its base's by now
        raise LossmapError(
            f"{folder}: is a LoRA adapter ({ADAPTER}) on the hub, and Lossmap takes an adapter as a folder. Download it"
            " (hf download OWNER/NAME --local-dir FOLDER) and give that folder."
        )
    if not (folder / "config.json").is_file():
        inner = sorted(path.parent.name for path in folder.glob("*/config.json"))
        hint = f" Its sub-folder {inner[0]} has one." if inner else ""
        raise LossmapError(f"{folder}: has no config.json. Give the folder that a model was saved to.{hint}")
    found = read_family(folder)
    if not any((folder / name).is_file() for name in PROCESSORS):
        raise LossmapError(
            f"{folder}: has no {PROCESSORS[0]} (nor {PROCESSORS[1]}), which says how images are resized."
            " Copy it from where the model comes from."
        )
    return found


def weight_map(folder: Path) -> dict[str, str]:
    """Name of each tensor -> name of its file, by a checkpoint's index of weights.

    Raises: LossmapError if the index can't be read, or is none.
    """
    index = folder / INDEX
    try:
        return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"].items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise LossmapError(f"{index}: can't be read as an index of weights ({error!r}). Get the file again.") from None


def _needed_weights(folder: Path, family: Family, vision_only: bool) -> dict[str, str]:
    index, mapped = folder / INDEX, weight_map(folder)
    needed = {key: name for key, name in mapped.items() if not vision_only or is_vision_key(family, key)}
    if not needed:
        raise LossmapError(
            f"{index}: maps no tensor whose name begins with {' or '.join(family.vision_keys)}, the vision side of this"
            " family. Use a checkpoint that holds the whole vision-language model."
        )
    outside = [name for name in needed.values() if name != Path(name).name]
    if outside:
        raise LossmapError(f"{index}: names {outside[0]}, which is not a file of its own folder. Correct the index.")
    return needed


def _check_hub_id(checkpoint: str, revision: str | None) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", checkpoint) or checkpoint.startswith("."):
        raise LossmapError(
            f"{checkpoint}: is neither a folder here nor a hub id (owner/name). Correct the path or the id."
        )
    if not COMMIT.fullmatch(revision or ""):
        found = f"has the revision {revision!r}" if revision else "has no revision"
        raise LossmapError(
            f"{checkpoint}: {found}. Give the commit to use, 40 hex digits: a branch or a tag can move, and results"
            " with it. The hub's page of the model lists its commits under Files, History."
        )


def _download(checkpoint: str, revision: str | None, vision_only: bool) -> Path:
    _check_hub_id(checkpoint, revision)
    folder = _snapshot(checkpoint, revision, SMALL_FILES)
    if (folder / "config.json").is_file() and not (folder / INDEX).is_file():
        folder = _snapshot(checkpoint, revision, [*SMALL_FILES, SINGLE])
    files = weight_files(folder, vision_only)
    return _snapshot(checkpoint, revision, [*SMALL_FILES, *files])


def _snapshot(checkpoint: str, revision: str | None, patterns: list[str]) -> Path:
    """The hub cache's folder of this commit, with the files of these patterns in it."""
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            checkpoint, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]
        )
    except (huggingface_hub.errors.HTTPError, OSError) as error:
        raise LossmapError(f"{checkpoint} at {revision}: {_what_helps(error)}.") from None
    return Path(folder)


def _what_helps(error: Exception) -> str:
    """What went wrong between here and the hub, and what to do. Never holds a token."""
    from huggingface_hub import errors

    local = "or download it elsewhere and give its folder as the checkpoint"
    match error:
        case errors.GatedRepoError():
            return (
                "is gated: the hub wants its terms accepted. Do so on the model's page and set HF_TOKEN to a token"
                f" of that account, {local}"
            )
        case errors.RepositoryNotFoundError():
            return (
                "was not found, or is private. Correct the id; for a private model set HF_TOKEN to a token that may"
                f" read it, {local}"
            )
        case errors.RevisionNotFoundError():
            return "the hub has no such revision. Take a commit from the model's page, under Files, History"
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            return f"was refused (HTTP {error.response.status_code}). Set HF_TOKEN to a token that may read it, {local}"
        case errors.HfHubHTTPError():
            return (
                f"could not be downloaded (HTTP {error.response.status_code}). Try again later, set HF_ENDPOINT to a"
                f" mirror, {local}"
            )
        case errors.OfflineModeIsEnabled() | errors.LocalEntryNotFoundError():
            return (
                "is not complete in the hub's cache, and the hub could not be reached. Unset HF_HUB_OFFLINE, set"
                f" HF_HOME to a cache that has it, set HF_ENDPOINT to a mirror, {local}"
            )
        case _:  # connection, time-out, full disk
            return (
                f"could not be downloaded ({type(error).__name__}: {error}). Check the connection and the disk, set"
                f" HF_ENDPOINT to a mirror or HF_HOME to a disk with room, {local}"
            )
