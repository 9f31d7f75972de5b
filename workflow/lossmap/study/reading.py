"""A study's file as it is written: keys that are given twice, and the line of each key.

The Snakefile imports this: nothing heavy.
"""

from contextlib import contextmanager
from pathlib import Path

import yaml

from lossmap.errors import LossmapError
from lossmap.vlm.checkpoints import CHECKOUT


def default_study() -> Path:
    """The study that is meant where none is given: config.yaml of the working folder, else that of this checkout."""
    here = Path("config.yaml")
    return here if here.is_file() else CHECKOUT / here


def read_study(path: str | Path) -> dict:
    """The content of a study's file, unchecked but for keys that are given twice: YAML would take the last.

    Raises: LossmapError if there are such keys, or the file is not YAML.
    """
    with _opened(path) as file:
        return yaml.load(file, UniqueKeys)


def lines_of(path: str | Path) -> dict[tuple, str]:
    """Where in a study's file each key and entry stands: its path, such as ("overlap", "k", 0) -> "mine.yaml:12"."""
    places: dict[tuple, str] = {}

    def walk(node: yaml.Node, above: tuple) -> None:
        if isinstance(node, yaml.MappingNode):
            entries = [(key.value, key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            entries = [(number, value, value) for number, value in enumerate(node.value)]
        else:
            return
        for name, key, value in entries:
            places[*above, name] = f"{path}:{key.start_mark.line + 1}"
            walk(value, (*above, name))

    with _opened(path) as file:
        node = yaml.compose(file, yaml.SafeLoader)
    if node is not None:
        walk(node, ())
    return places


def placed(problem: str, places: dict[tuple, str]) -> str:
    """A problem that begins with its place, "overlap: k: 0: ...", preceded by the line of as much of it as is known."""
    found, path = "", tuple[int | str, ...]()
    for step in problem.split(": "):
        path = (*path, int(step) if step.isdigit() and (*path, step) not in places else step)
        if path not in places:
            break
        found = f"{places[path]}: "
    return found + problem


class UniqueKeys(yaml.SafeLoader):
    """PyYAML's safe loader, but for a key that occurs twice in a mapping: an error that names both lines."""

    def construct_mapping(self, node, deep=False):
        lines = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in lines:
                where = f"lines {lines[key.value]} and {line}"
                raise LossmapError(f"{key.start_mark.name}: {key.value!r} is given twice, in {where}. Remove one.")
            lines[key.value] = line
        return super().construct_mapping(node, deep)


@contextmanager
def _opened(path: str | Path):
    try:
        with Path(path).open(encoding="utf-8") as file:
            yield file
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise LossmapError(f"{path}: can't be read as a study ({error}). Give its file with --configfile.") from None
