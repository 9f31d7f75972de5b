"""The state of what a study's datasets read, and what of it the workflow makes itself.

The Snakefile imports this: standard library only.
"""

import hashlib
import os
from collections.abc import Iterable
from functools import cache

from lossmap.data.sources import input_paths
from lossmap.miniature.files import ANNOTATIONS, FOLDERS, paths_in

MADE = "results/"  # where a checkpoint may be made by a run; of datasets see is_made
SMALL = 100_000_000  # bytes: files up to this size count by content, as they do for Snakemake (profiles/default)


def sources_digest(entry: dict, miniature: str) -> str:
    """Digest of what an entry reads, as 16 hex digits: of its files, see `files_digest`; of its folders, the names of
    sub-folders and when each gained or lost a file; of links in them, where they lead and how large and old that is.

    Parameters: entry, a dataset's; miniature, the folder of the miniature datasets, which are left out: what the
    workflow itself makes, Snakemake watches. Images that were overwritten in place are left out: to look at every file
    of a large dataset would take minutes on a cluster's disk, whenever the workflow is started.
    """
    paths = [path for path in input_paths(entry) if not is_made(path, miniature)]
    state: list[object] = [files_digest(path for path in paths if not os.path.isdir(path))]
    for path in filter(os.path.isdir, paths):
        state += _folder_state(path, "", set())
    return hashlib.sha256(repr(state).encode()).hexdigest()[:16]


def is_made(path: str, miniature: str) -> bool:
    """Whether a path is one of the miniature datasets' files or folders, or lies in one: the workflow makes those
    itself, and they need not exist before the run. miniature: their folder. All else below results/ is the user's."""
    made = (*paths_in(ANNOTATIONS, miniature), *paths_in(FOLDERS, miniature))
    return any(path == one or path.startswith(f"{one}/") for one in made)


def _folder_state(root: str, inner: str, seen: set) -> list[tuple]:
    """A folder and all below it, through links; seen: folders that were looked at, where links lead in a circle."""
    folder = os.path.join(root, inner)
    stat = os.stat(folder)
    state: list[tuple] = [(inner, stat.st_mtime_ns)]
    if (stat.st_dev, stat.st_ino) in seen:
        return state
    seen.add((stat.st_dev, stat.st_ino))
    if not os.access(folder, os.R_OK | os.X_OK):
        return state  # reading it says so
    with os.scandir(folder) as entries:
        for one in sorted(entries, key=lambda one: one.name):
            path = os.path.join(inner, one.name)
            if one.is_symlink():
                target = os.stat(one.path) if os.path.exists(one.path) else None
                state.append((path, os.readlink(one.path), target and (target.st_size, target.st_mtime_ns)))
            if os.path.isdir(one.path) if one.is_symlink() else one.is_dir():
                state += _folder_state(root, path, seen)
    return state


def files_digest(paths: Iterable[str]) -> str:
    """Digest of files, as 16 hex digits: of the content of small ones, of the size and date of others.

    Snakemake looks at a file only where its date is newer than that of a result, and so overlooks one that was replaced
    by an older one: whatever is moved, unpacked or synchronised brings its date along.
    """
    return hashlib.sha256(repr([_state(path) for path in paths]).encode()).hexdigest()[:16]


@cache  # asked by every job
def _state(path: str) -> tuple:
    name = os.path.basename(path)
    if not os.path.isfile(path):
        return name, None  # Snakemake says so
    state = os.stat(path)
    if state.st_size > SMALL:
        return name, state.st_size, state.st_mtime_ns
    with open(path, "rb") as file:
        return name, hashlib.file_digest(file, "sha256").hexdigest()
