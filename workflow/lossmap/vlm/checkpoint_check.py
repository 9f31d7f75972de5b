"""What is wrong with a checkpoint's folder, before anything is loaded: by names of files, JSON and the weight files'
headers. Importing it needs neither torch nor transformers."""

import json
from pathlib import Path

from lossmap.errors import LossmapError
from lossmap.vlm.adapters import ADAPTER_WEIGHTS, is_adapter, read_adapter
from lossmap.vlm.checkpoints import (
    INDEX,
    check_configuration,
    configuration_here,
    missing_weights,
    weight_files,
    weight_map,
)
from lossmap.vlm.families import FAMILIES, Family, is_connector_key, is_vision_key
from lossmap.vlm.foreign_formats import ORIGINAL_LLAVA, json_object
from lossmap.vlm.input_size import size_problem
from lossmap.vlm.receives import ALL, SEQUENCE, receives_problem
from lossmap.vlm.view_limits import SQUARE, View

POINTER = b"version https://git-lfs"  # how a file begins that git left in place of a large one
HEADER = 100_000_000  # bytes that the header of a safetensors file has at most
# What `load_processor` needs of a tokenizer: one of these sets of files, beside tokenizer_config.json.
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
# Families that are asked without a chat template, since their checkpoints have none.
PLAIN = ("paligemma",)
# Families that Lossmap can't ask, and why.
MUTE = {
    "blip-2": "the class of blip-2 that generates makes its image's tokens itself, of pixels, and takes no others",
    "got_ocr2": "the processor of got_ocr2 lays out prompts of its own, for reading text alone",
    "mllama": "the language model of mllama reads images by cross-attention, where Lossmap hands no embeddings over",
    "idefics": "the language model of idefics reads images by cross-attention, where Lossmap hands no embeddings over",
    "kosmos-2": "kosmos-2 marks an image's place in a prompt in a way of its own, which Lossmap doesn't write",
    "video_llava": "the processor of video_llava can't be made without its video part, which needs torchvision",
    "ernie4_5_vl_moe": "Lossmap hasn't been tried with prompts of ernie4_5_vl_moe",
    "minicpmv4_6": "the processor of minicpmv4_6 can't be made without its video part, which needs torchvision",
}


def checkpoint_problems(
    folder: Path, image_size: int | None = None, asked: bool = False, view: View = SQUARE, receives: str = ALL
) -> list[str]:
    """What is wrong with a local checkpoint in a study, a line each; of faults that follow from others, the first.

    Parameters: folder; image_size, view and receives, the study's; asked, whether the model is asked for text, so that
        it needs its language model, tokenizer and chat template. Of an adapter's folder, its base's too, as far as that
        is here.
    """
    if is_adapter(folder):
        return _adapter_problems(folder, image_size, asked, view, receives)
    try:
        model_type, family = check_configuration(folder)
    except LossmapError as error:
        return [str(error)]
    size = size_problem(folder, image_size, view=view)
    problems = list(filter(None, [size, receives_problem(f"{folder} ({model_type})", family, receives)]))
    try:
        problems += missing_weights(folder, vision_only=not asked) or _weight_problems(folder, family, not asked)
    except LossmapError as error:
        problems.append(str(error))
    return problems + (language_problems(folder, model_type, receives) if asked else [])


def _adapter_problems(folder: Path, image_size: int | None, asked: bool, view: View, receives: str) -> list[str]:
    try:
        adapter = read_adapter(folder)
        _tensors_in(folder / ADAPTER_WEIGHTS)
    except LossmapError as error:
        return [str(error)]
    if isinstance(adapter.base, Path):
        found = checkpoint_problems(adapter.base, image_size, asked, view, receives)
    else:
        known = configuration_here(adapter.base, adapter.revision)
        found = configuration_problems(known, image_size, asked, adapter.base, view, receives) if known else []
    return [f"{folder}: its base: {problem}" for problem in found]


def configuration_problems(
    folder: Path, image_size: int | None, asked: bool, called: str, view: View = SQUARE, receives: str = ALL
) -> list[str]:
    """The same of a hub checkpoint, of which the configuration alone is here. called: what messages call it."""
    try:
        model_type, family = check_configuration(folder)
    except LossmapError as error:
        return [str(error)]
    size = size_problem(folder, image_size, called, view)
    problems = list(filter(None, [size, receives_problem(f"{called} ({model_type})", family, receives)]))
    return problems + (_mute(called, model_type, receives) if asked else [])


def language_problems(folder: Path, model_type: str, receives: str = ALL) -> list[str]:
    """What a checkpoint lacks, beside weights, to be asked for text."""
    mute = _mute(folder, model_type, receives)
    if mute:
        return mute
    remedy = "leave this model out of captions, answers and choices"
    files = [files for files in TOKENIZERS if all((folder / name).is_file() for name in files)]
    problems = []
    if not files:
        made = (folder / "tokenizer.model").is_file()
        how = "save it anew with transformers' AutoTokenizer" if made else "copy it from where the model comes from"
        problems.append(
            f"{folder}: has no tokenizer.json, which captions, answers and choices need; {how}, or {remedy}."
        )
    if not (folder / "tokenizer_config.json").is_file():
        problems.append(
            f"{folder}: has no tokenizer_config.json. Copy it from where the model comes from, or {remedy}."
        )
    pointers = [name for names in files for name in names if _begins(folder / name).startswith(POINTER)]
    problems += [_pointer(folder / name) for name in pointers]
    if not pointers and ("tokenizer.json",) in files and not _ends_as_json(folder / "tokenizer.json"):
        problems.append(f"{folder / 'tokenizer.json'}: is damaged or cut short. Get the file again.")
    if model_type not in PLAIN and not _has_template(folder):
        problems.append(
            f"{folder}: has no chat template (chat_template.jinja, chat_template.json, or chat_template in"
            f" tokenizer_config.json), by which {model_type} is asked. Copy it from where the model comes from, or"
            f" {remedy}."
        )
    return problems


def _mute(called: str | Path, model_type: str, receives: str) -> list[str]:
    """Why a model can't be asked for text, if it can't."""
    if model_type in MUTE:
        return [f"{called}: {MUTE[model_type]}. Leave this model out of captions, answers and choices."]
    if not FAMILIES[model_type].stacked or receives == ALL:
        return []
    return [
        f"{called}: a {model_type} language model is given features of several tower layers (DeepStack) beside the"
        " sequence, which embeddings with receives: sequence do not hold. Set receives: all, or leave this model out of"
        " captions, answers and choices."
    ]


def _has_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    return any(
        json_object(folder / name).get("chat_template") for name in ("tokenizer_config.json", "processor_config.json")
    )


def _weight_problems(folder: Path, family: Family, vision_only: bool) -> list[str]:
    """Weight files that are no weights, are cut short, or hold none of a part that is needed."""
    held, problems = {}, []
    for name in weight_files(folder, vision_only):
        try:
            held[name] = _tensors_in(folder / name)
        except LossmapError as error:
            problems.append(str(error))
    if problems:
        return problems
    names = {key for keys in held.values() for key in keys}
    if any("mm_projector." in key for key in names):
        return [ORIGINAL_LLAVA.format(folder=folder)]
    if (folder / INDEX).is_file():
        mapped = weight_map(folder)
        lost = [key for key, name in mapped.items() if name in held and key not in held[name]]
        if lost:
            return [
                f"{folder / mapped[lost[0]]}: lacks {lost[0]} and {len(lost) - 1} other tensors that {INDEX} says are"
                " in it. Get the file again, and the index with it."
            ]
    if not any(is_connector_key(family, key, SEQUENCE) for key in names):
        return [
            f"{folder}: holds no weights of the connector ({family.connector}). Use a checkpoint of the whole model."
        ]
    if not any(is_vision_key(family, key) and not is_connector_key(family, key) for key in names):
        return [f"{folder}: holds no weights of the vision tower. Use a checkpoint of the whole model."]
    if not vision_only and all(is_vision_key(family, key) for key in names):
        return [f"{folder}: holds no weights of the language model. Use a checkpoint of the whole model."]
    return []


def _tensors_in(path: Path) -> list[str]:
    """Names of the tensors in a safetensors file, by its header.

    Raises: LossmapError if it is something else, or not as long as its header says.
    """
    start = _begins(path)
    if start.startswith(POINTER):
        raise LossmapError(_pointer(path))
    length = int.from_bytes(start[:8], "little")
    size = path.stat().st_size
    try:
        if len(start) < 8 or length > min(HEADER, size):
            raise ValueError("its header is no header of one")
        with path.open("rb") as file:
            file.seek(8)
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise LossmapError(f"{path}: can't be read as safetensors ({error}). Get the file again.") from None
    if size != 8 + length + end:
        raise LossmapError(
            f"{path}: is damaged or cut short: {size:,} bytes, where its header speaks of {8 + length + end:,}. Get the"
            " file again."
        )
    return list(header)


def _begins(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(POINTER))
    except OSError as error:
        raise LossmapError(f"{path}: can't be read ({error.strerror}). Mend the file or its permissions.") from None


def _ends_as_json(path: Path) -> bool:
    """A tokenizer's file is large, and read at each start: its end alone is looked at."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 64, 0))
        return file.read().rstrip().endswith(b"}")


def _pointer(path: Path) -> str:
    return f"{path}: is a pointer that git left in the file's place. Run git lfs pull there, or get the file itself."
