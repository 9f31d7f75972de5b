"""What a dataset's entry in a study's file may say, and which files it reads.

The Snakefile imports this: standard library only.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from lossmap.data.miniature_files import ANNOTATIONS, FOLDERS, paths_in
from lossmap.errors import LossmapError

CUB_FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "bounding_boxes.txt")
MADE = "results/"  # where a checkpoint may be made by a run; of datasets see is_made
SELECTION = ("limit", "sample", "seed")
SMALL = 100_000_000  # bytes: files up to this size count by content, as they do for Snakemake (profiles/default)


@dataclass(frozen=True)
class Format:
    """One published annotation format: the keys that name what it reads, and its splits, if it has any."""

    paths: tuple[str, ...]
    splits: tuple[str, ...] = ()

    @property
    def required(self) -> tuple[str, ...]:
        """Keys that an entry must have."""
        return ("format", *self.paths, *(("split",) if self.splits else ()))

    @property
    def allowed(self) -> tuple[str, ...]:
        """Keys that an entry may have."""
        return (*self.required, *SELECTION)


FORMATS = {
    "karpathy": Format(("images", "annotations"), splits=("train", "restval", "val", "test")),
    "coco": Format(("images", "annotations")),
    "seedbench": Format(("images", "annotations")),
    "vizwiz_grounding": Format(("images", "annotations", "masks")),
    "vqav2": Format(("images", "questions", "annotations")),
    "cub": Format(("images", "annotations"), splits=("train", "test")),
    "foodieqa": Format(("images", "annotations")),
    "image_folder": Format(("images",)),
}


def input_paths(entry: dict) -> list[str]:
    """Every file and folder that an entry reads, as the entry gives them, in a fixed order.

    Raises: LossmapError if the entry can't be read (see check_entry).
    """
    check_entry(entry)
    paths = [entry[key] for key in FORMATS[entry["format"]].paths]
    if entry["format"] == "cub":  # its `annotations` are a folder: name its files, so that a change of one is seen
        return [entry["images"], *(os.path.join(entry["annotations"], name) for name in CUB_FILES)]
    return paths


def sources_digest(entry: dict, miniature: str) -> str:
    """Digest of what an entry reads, as 16 hex digits: of its files, see `files_digest`; of its folders, the names of
    sub-folders and when each gained or lost a file; of links in them, where they lead and how large and old that is.

    Parameters: entry, a dataset's; miniature, the folder of the miniature datasets, which are left out: what the
    workflow itself makes, Snakemake watches. Images that were overwritten in place are left out: to look at every file
    of a large dataset would take minutes on a cluster's disk, whenever the workflow is started.
    """
    paths = [path for path in input_paths(entry) if not is_made(path, miniature)]
    state = [files_digest(path for path in paths if not os.path.isdir(path))]
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
    state = [(inner, stat.st_mtime_ns)]
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


def check_entry(entry: dict) -> None:
    """Nothing, or one LossmapError that lists what `entry_problems` finds."""
    problems = entry_problems(entry)
    if problems:
        raise LossmapError.listing(
            f"A dataset of format {entry.get('format')!r} can't be read as its entry stands:",
            problems,
            "Mend its entry in the configuration.",
        )


def entry_problems(entry: dict) -> list[str]:
    """What is wrong with an entry, a line each: an unknown format; keys that are missing, unknown or out of range.

    `limit` takes that many images, spread evenly over the annotations (all, if there are fewer), `sample` as many at
    random by `seed` (0 unless given).
    """
    form = FORMATS.get(entry.get("format"))
    if form is None:
        return [f"format: is {entry.get('format')!r}, wanted one of {', '.join(FORMATS)}"]
    problems = [f"{key}: is missing; format {entry['format']} needs it" for key in form.required if key not in entry]
    problems += [f"{key}: means nothing to format {entry['format']}" for key in entry if key not in form.allowed]
    problems += [
        f"{key}: is {entry[key]!r}, wanted a path"
        for key in form.paths
        if key in entry and not (isinstance(entry[key], str) and entry[key].strip())
    ]
    if "split" in entry and form.splits and entry["split"] not in form.splits:
        problems.append(f"split: is {entry['split']!r}, wanted one of {', '.join(form.splits)}")
    for key, lowest in (("limit", 1), ("sample", 1), ("seed", 0)):
        value = entry.get(key, lowest)
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            problems.append(f"{key}: is {value!r}, wanted a whole number of at least {lowest}")
    if "limit" in entry and "sample" in entry:
        problems.append("limit and sample: are both given, and each chooses images in its own way")
    if "seed" in entry and "sample" not in entry:
        problems.append("seed: does nothing without sample")
    return problems
