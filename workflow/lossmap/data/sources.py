"""What a dataset's entry in a study's file may say, and which files it reads.

The Snakefile imports this: standard library only.
"""

import os
from dataclasses import dataclass

from lossmap.errors import LossmapError

CUB_FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "bounding_boxes.txt")
SELECTION = ("limit", "sample", "seed")


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
    form = FORMATS.get(str(entry.get("format")))
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
