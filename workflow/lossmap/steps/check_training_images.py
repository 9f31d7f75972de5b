"""Manifests -> proof that no image trains a reconstructor and is measured with it."""

import json
from pathlib import Path

import pandas as pd

from lossmap.errors import LossmapError


def run(*, training: Path, evaluated: list[Path], counts: Path) -> None:
    """Compare the files of the training images with those of every dataset whose losses are measured, by SHA-256.

    A loss on an image that was trained on says nothing of what can be recovered from images at large. Published splits
    do overlap: COCO 2017 train holds most of COCO 2014 validation, and so of Karpathy's test images.
    """
    trained = set(pd.read_parquet(training, columns=["sha256"])["sha256"])
    images, problems = {"training": len(trained)}, []
    for path in evaluated:
        rows = pd.read_parquet(path, columns=["image_id", "sha256"])
        shared = rows[rows["sha256"].isin(trained)]
        images[path.parent.name] = len(rows)
        if len(shared):
            first = shared["image_id"].iloc[0]
            problems.append(f"{path.parent.name}: {len(shared)} of {len(rows)} images, the first is {first}")
    if problems:
        raise LossmapError.listing(
            f"Images of {training.parent.name}, which trains the reconstructors, are also in datasets whose losses are "
            "measured:",
            problems,
            "Choose another reconstruction: train, or another split, limit or sample of these datasets.",
        )
    counts.write_text(json.dumps({"images": images, "shared": 0}, indent=1) + "\n")
