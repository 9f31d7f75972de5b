"""Faults that pydantic finds in a study's file, in words: the place, what stands there, what is wanted."""

import difflib
import types
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from lossmap.study.definition import NAME

RENAMED_METRICS = {"l2": "euclidean", "ip": "cosine"}  # in studies of earlier versions
OF_A_NAME = "a name here may hold A to Z, a to z, digits, _ - and ., and begins with a letter or digit"
WANTED = {  # kinds of faults, as pydantic calls them
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "names with values",
    "model_type": "keys with values",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "union_tag_invalid": "{expected_tags}",
    "string_too_short": "some text",
    "string_pattern_mismatch": "what matches {pattern}",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
}


def faults_of(error: ValidationError, config: dict, definition: type[BaseModel], places: dict[tuple, str]) -> list[str]:
    """A line for each fault, such as "mine.yaml:12: overlap: k: 0: is 0, wanted at least 1".

    config: what was checked; definition: by what; places: where each key stands (lossmap.study.reading.lines_of).
    """
    lines: dict[str, None] = {}
    for fault in error.errors():
        path = _path(fault["loc"], config)
        where = next((f"{places[path[:n]]}: " for n in range(len(path), 0, -1) if path[:n] in places), "")
        lines[where + _worded(dict(fault), path, definition)] = None
    return list(lines)


def nearest(key: object, known: list[str]) -> str:
    """What was probably meant, or all that is known."""
    close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else f" (known: {', '.join(known)})"


def _worded(fault: dict, path: tuple, definition: type[BaseModel]) -> str:
    kind, given, about = fault["type"], fault["input"], fault.get("ctx", {})
    if kind in ("extra_forbidden", "invalid_key"):
        path = path[:-1]
    place = ": ".join(map(str, path)) or "top level"
    match kind:
        case "extra_forbidden" | "invalid_key":
            *above, key = fault["loc"]
            return f"{place}: unknown key {key!r}{nearest(key, _known_keys(definition, above))}"
        case "missing":
            return f"{place}: {fault['loc'][-1]!r} is missing"
        case "union_tag_not_found":
            return f"{place}: {about['discriminator'].strip(chr(39))!r} is missing"
        case "value_error":  # of our own checks
            return f"{place}: {about['error']}"
        case "string_pattern_mismatch" if about["pattern"] == NAME:
            return f"{place}: {given!r} is no name of a file: {OF_A_NAME}"
        case "string_pattern_mismatch" if path[-1] == "revision":
            return f"{place}: {given!r} is not a commit hash (40 hex digits): a branch or tag can move"
        case "literal_error" if "metrics" in path and str(given) in RENAMED_METRICS:
            return f"{': '.join(map(str, path[:-1]))}: {given!r} is now {RENAMED_METRICS[given]!r}"
        case "union_tag_invalid":
            place, given = f"{place}: kind", about["tag"]
    wanted = WANTED[kind].format(**about) if kind in WANTED else fault["msg"]
    return f"{place}: is {given!r}, wanted {wanted.replace(chr(39), '')}"


def _path(place: tuple, config: dict) -> tuple:
    """Where in the file a fault lies: without what pydantic adds of its own, such as the kind of a network."""
    path, node = [], config
    for step in place:
        if (isinstance(node, dict) and step in node) or (isinstance(node, list) and isinstance(step, int)):
            path.append(step)
            node = node[step]
    return tuple(path)


def _known_keys(definition: type[BaseModel], place: list) -> list[str]:
    """Keys that a mapping may have, by its place."""
    kind = definition
    for step in place:
        kind = _inside(kind, step)
    # Of a section that may be left out, what it is where it is there.
    kind = next((member for member in get_args(kind) if member is not type(None)), kind)
    return [field.alias or name for name, field in kind.model_fields.items()]


def _inside(kind, step):
    """The type of what stands at a key, or of a member of a union that pydantic names by its kind."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        members = [member for member in get_args(kind) if member is not type(None)]
        tagged = [member for member in members if step in _tags(member)]
        return tagged[0] if tagged else _inside(members[0], step)
    if get_origin(kind) is dict:
        return get_args(kind)[1]
    if get_origin(kind) is list:
        return get_args(kind)[0]
    fields = {field.alias or name: field for name, field in kind.model_fields.items()}
    return fields[step].annotation


def _tags(member) -> tuple:
    """Kinds by which a member of a union is known."""
    field = getattr(member, "model_fields", {}).get("kind")
    return get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
