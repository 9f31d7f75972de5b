"""All readers of a model in one file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from lossmap.errors import LossmapError
from lossmap.readers.choosing import Reader as Name
from lossmap.readers.material import Scale
from lossmap.readers.network import Reader
from lossmap.reconstruct.saving import load_tensors, save_tensors

FORMAT = "lossmap-readers/1"


class Readers(NamedTuple):
    """modules: by name. scales: "pre" and "post" -> how embeddings are standardised. answers: those that readers of
    open questions know; None where they score options. shares: category -> how often each was right in training."""

    modules: dict[Name, Reader]
    scales: dict[str, Scale]
    answers: list[str] | None
    shares: dict[str, list[float]]


def save_readers(readers: Readers, built: Mapping[str, Mapping[str, Any]], path: Path, made: dict) -> None:
    """Write readers, replacing what is there in one go.

    Parameters: built, network -> what `Reader` takes beside features, words and answers. made, for readers of the file:
        its key and provenance.
    """
    tensors: dict[str, Tensor] = {}
    for side, scale in readers.scales.items():
        tensors |= {f"scale/{side}/mean": scale.mean, f"scale/{side}/std": scale.std}
    described = []
    for number, (name, module) in enumerate(readers.modules.items()):
        sizes = module.see.what.in_features if module.see is not None else None, module.word.in_features
        described.append({**name._asdict(), "features": sizes[0], "words": sizes[1], **built[name.network]})
        tensors |= {f"{number}/{key}": values for key, values in module.state_dict().items()}
    about = {"format": FORMAT, "answers": readers.answers, "shares": readers.shares, "readers": described}
    save_tensors(path, tensors, {**about, **made})


def load_readers(path: Path) -> Readers:
    """What `save_readers` wrote, in eval mode.

    Raises: LossmapError if the file can't be read, or is none of that kind.
    """
    tensors, about = load_tensors(path)
    if about.get("format") != FORMAT:
        raise LossmapError(f"{path}: its format is {about.get('format')!r}, wanted {FORMAT}. Make it anew.")
    answers = about["answers"]
    modules = {}
    for number, one in enumerate(about["readers"]):
        name = Name(*(one.pop(key) for key in Name._fields))
        module = Reader(answers=None if answers is None else len(answers), **one)
        module.load_state_dict(_below(tensors, f"{number}/"))
        modules[name] = module.eval()
    scales = {}
    for side in ("pre", "post"):
        if found := _below(tensors, f"scale/{side}/"):
            scales[side] = Scale(found["mean"], found["std"])
    return Readers(modules, scales, answers, about["shares"])


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): values for key, values in tensors.items() if key.startswith(prefix)}
