"""What the readers share: annotations as they are found, and the faults in them, collected."""

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lossmap.errors import LossmapError, study_file


class ImageEntry(NamedTuple):
    """One image of the annotations. file: relative to the image folder; where: the entry, for messages."""

    image_id: str
    file: str
    where: str
    label: str | None = None


class Question(NamedTuple):
    """One question, in the column order of the manifest; mask: relative to the mask folder."""

    question_id: str
    image_id: str
    question: str
    answers: list[str]
    options: list[str] | None = None
    answer_index: int | None = None
    category: str | None = None
    mask: str | None = None


@dataclass
class Annotations:
    """A dataset's annotations: images in their order, captions as (image_id, caption); left_out, counts by reason;
    files, those of all images, where some are chosen."""

    images: list[ImageEntry] = field(default_factory=list)
    captions: list[tuple[str, str]] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    files: frozenset[str] = frozenset()


class Problems(list[str]):
    """Faults found so far, a line each. The methods return a checked value, or None after noting the fault."""

    def take(self, record: Any, name: str, kind: str, where: str) -> Any:
        """The field `name` of a JSON object. kind: see KINDS; "an id", text or a whole number, is given as text."""
        if not isinstance(record, dict):
            return self._note(f"{where}: is {_describe(record)}, wanted an object")
        if name not in record:
            return self._note(f'{where}: lacks "{name}"')
        value = record[name]
        if not KINDS[kind](value):
            return self._note(f'{where}: "{name}" is {_describe(value)}, wanted {kind}')
        return str(value) if kind == "an id" else value

    def texts(self, record, name: str, where: str) -> list[str] | None:
        """A field that is a list of text, at least one of them not empty. A blank one among them is kept as it is."""
        values = self.take(record, name, "a list", where)
        if values is None:
            return None
        wrong = [value for value in values if not is_text(value)]
        if wrong:
            return self._note(f'{where}: "{name}" holds {_describe(wrong[0])}, wanted only text')
        if not any(value.strip() for value in values):
            return self._note(f'{where}: "{name}" is empty')
        return values

    def option(self, index: int | None, options: list[str], given, where: str) -> int | None:
        """The index of the right option, if it is one."""
        if index is None or not 0 <= index < len(options):
            return self._note(f'{where}: "answer" is {_describe(given)}, which is none of its {len(options)} options')
        return index

    def is_new(self, seen: dict[str, str], key: str, what: str, where: str) -> bool:
        """Whether an id comes for the first time; seen: id -> where it came first."""
        first = seen.setdefault(key, where)
        if first is not where:
            self._note(f"{where}: {what} {key} was already given at {first}")
        return first is where

    def _note(self, problem: str) -> Any:
        """None, in place of what was wanted."""
        self.append(problem)
        return None


def is_text(value) -> bool:
    """Whether a value is text that UTF-8 can hold; it may be empty."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()  # JSON can spell half a surrogate pair, which no table can hold
    except UnicodeEncodeError:
        return False
    return True


def _is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


KINDS = {
    "text": lambda value: is_text(value) and bool(value.strip()),
    "a whole number": _is_whole,
    "an id": lambda value: _is_whole(value) or (is_text(value) and bool(value.strip())),
    "a list": lambda value: isinstance(value, list),
    "an object": lambda value: isinstance(value, dict),
}


def _describe(value) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list | dict):
        kind = "list" if isinstance(value, list) else "object"
        return f"an empty {kind}" if not value else f"a{'n' if kind == 'object' else ''} {kind}"
    if isinstance(value, str):
        if not value.strip():
            return "empty text"
        shown = value if len(value) <= 60 else value[:60] + "..."
        return f"the text {shown!r}" if is_text(value) else f"the text {shown!a}, which UTF-8 can't hold"
    return "a huge number" if abs(value) > 1e30 else f"the number {value}"


def load_json(path: str, kind: type, problems: Problems, forget: tuple[str, ...] = ()):
    """A JSON file whose outermost value is of `kind`, dict or list.

    forget: fields that are dropped while reading, wherever they are, to save memory. A name that comes twice in one
    object, of which JSON readers silently keep the last, is noted in `problems`.
    Raises: LossmapError if there is no such file, or it is not JSON of that kind.
    """

    def keep(pairs):
        record = dict(pairs)
        if len(record) < len(pairs):
            repeated = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
            problems.extend(f"{path}: {name!a} comes twice in one object" for name in repeated)
        for name in forget:
            record.pop(name, None)
        return record

    text = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=keep)
    except json.JSONDecodeError as error:
        raise LossmapError(
            f"{path}: is not JSON: {error.msg} at line {error.lineno}, column {error.colno}. Download the file again."
        ) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets nested too deeply
        raise LossmapError(f"{path}: is not usable JSON ({error}). Download the file again.") from None
    if not isinstance(content, kind):
        wanted = "an object" if kind is dict else "a list"
        raise LossmapError(
            f"{path}: its outermost value is {_describe(content)}, wanted {wanted}. Is it the file of this format?"
        )
    return content


def read_text(path: str) -> str:
    """A UTF-8 file. Raises: LossmapError if it is missing, empty, unreadable or not UTF-8."""
    if not os.path.isfile(path):
        found = "is not a file" if os.path.lexists(path) else "does not exist"
        raise LossmapError(f"{path}: {found}. Correct the dataset's entry in {study_file()}, or download the file.")
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise LossmapError(f"{path}: is not UTF-8 text (byte {error.start}). Download the file again.") from None
    except OSError as error:
        raise LossmapError(f"{path}: can't be read ({error.strerror}). Mend its permissions.") from None
    if not text.strip():
        raise LossmapError(f"{path}: is empty. Download the file again.")
    return text
