"""Manifests -> proof that no image trains reconstructors or readers and is measured with them; near-copies."""

import json
import sys
from pathlib import Path

import pandas as pd

from lossmap.data.near_copies import near_copies as find_near_copies
from lossmap.data.near_copies import read_pictures
from lossmap.errors import LossmapError

# What is trained -> what is measured with it, and the section of a study that says so.
WHAT = {"reconstructors": ("whose losses are measured", "reconstruction"), "readers": ("that they answer", "readers")}


def run(
    *, training: Path, evaluated: list[Path], counts: Path, near_copies: Path, trained: str = "reconstructors"
) -> None:
    """Compare the training images with those of every dataset that is measured: by the digests of their
    upright pixels, whatever a file says beside them; and by what they show, where they were encoded anew or resized.

    A loss on an image that was trained on says nothing of what can be recovered from images at large. Published splits
    do overlap: COCO 2017 train holds most of COCO 2014 validation, and so of Karpathy's test images. Equal images are
    an error. Near-copies are counted and named: losses are given without them too.

    training, evaluated: images.parquet of the manifests, with thumbnails.parquet beside each. counts: JSON to write:
    images and near-copies of each dataset. near_copies: Parquet to write: dataset, image_id, training_image_id, share
    (see lossmap.data.near_copies). trained: what the images train, reconstructors or readers.
    """
    measured, section = WHAT[trained]
    digests = set(pd.read_parquet(training, columns=["pixels_sha256"])["pixels_sha256"])
    images: dict[str, int] = {"training": len(pd.read_parquet(training, columns=["image_id"]))}
    problems = []
    for path in evaluated:
        rows = pd.read_parquet(path, columns=["image_id", "pixels_sha256"])
        shared = rows[rows["pixels_sha256"].isin(digests)]
        images[path.parent.name] = len(rows)
        if len(shared):
            first = shared["image_id"].iloc[0]
            problems.append(f"{path.parent.name}: {len(shared)} of {len(rows)} images, the first is {first}")
    if problems:
        raise LossmapError.listing(
            f"Images of {training.parent.name}, which trains the {trained}, are also in datasets {measured} "
            "(equal pixels):",
            problems,
            f"Choose another {section}: train, or another split, limit or sample of these datasets.",
        )
    pictures = read_pictures(training)
    tables = []
    for path in evaluated:
        found = find_near_copies(pictures, read_pictures(path))
        found.insert(0, "dataset", pd.Series(path.parent.name, index=found.index, dtype="str"))
        tables.append(found)
        if len(found):
            for stream in (sys.stdout, sys.stderr):
                print(_note(found, images[path.parent.name], training.parent.name, trained), file=stream)
    table = pd.concat(tables, ignore_index=True)
    table.to_parquet(near_copies, index=False)
    each = {path.parent.name: len(found) for path, found in zip(evaluated, tables, strict=True)}
    counts.write_text(json.dumps({"images": images, "shared": 0, "near_copies": each}, indent=1) + "\n")


def _note(found: pd.DataFrame, images: int, training: str, trained: str) -> str:
    first = ", ".join(f"{row.image_id} of {row.training_image_id}" for row in found.head(5).itertuples())
    more = ", ..." if len(found) > 5 else ""
    without = " Losses are given without them too." if trained == "reconstructors" else ""
    return (
        f"{found['dataset'].iloc[0]}: {len(found)} of {images} images are near-copies of images of {training}, which"
        f" train the {trained} (encoded anew, or resized): {first}{more}.{without}"
    )
