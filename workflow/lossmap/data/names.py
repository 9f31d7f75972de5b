"""File names of annotations -> files on disk, where Unicode spells one name in two ways.

"é" is one character or two. Annotations and file systems differ in which they write, and a copy from a Mac changes it.
"""

import functools
import os
import unicodedata
from collections import Counter
from collections.abc import Callable


def as_on_disk(files: list[str], root: str, named: frozenset[str]) -> tuple[list[str], dict[str, str]]:
    """Each file's name as the disk spells it, and hints on those that are not there.

    Parameters: files, paths relative to root as annotations give them; root, a folder; named, the paths of all entries,
    chosen or not.
    Returns: the paths, in order. One that does not exist is replaced by that of a file whose name is the same text in
    another Unicode form, if there is just one such file and no other entry means it; else it stays. Hints: path -> the
    file that may be meant: one that another entry means too, or whose name differs by small and capital letters.
    """
    spelt = functools.cache(_spelt)
    missing = [path for path in files if "\0" not in path and not os.path.lexists(os.path.join(root, path))]
    meant = {path: _resolve(path, root, spelt, _form) for path in missing}
    times = Counter(meant.values())
    found = {path: file for path, file in meant.items() if file and file not in named and times[file] == 1}
    hints = {path: meant[path] or _resolve(path, root, spelt, _letters) for path in missing if path not in found}
    return [found.get(path, path) for path in files], {path: file for path, file in hints.items() if file}


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _letters(name: str) -> str:
    return _form(_form(name).casefold())


def _spelt(folder: str, alike: Callable[[str], str]) -> dict[str, list[str]]:
    """What is alike in the names of a folder -> these names."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        names.setdefault(alike(name), []).append(name)
    return names


def _resolve(path: str, root: str, spelt: Callable, alike: Callable[[str], str]) -> str | None:
    """The one file whose path is alike, folder by folder; None if there is none, or are several."""
    parts: list[str] = []
    for part in path.split("/"):
        names = spelt(os.path.join(root, *parts), alike).get(alike(part), [])
        if part in names:
            names = [part]
        if len(names) != 1:
            return None
        parts += names
    return "/".join(parts)
