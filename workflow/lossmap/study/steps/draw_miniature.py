"""Handwritten digits -> the eight miniature datasets, in the formats of the published ones."""

from pathlib import Path

from lossmap.miniature.datasets import write_miniature
from lossmap.study.specs import DrawMiniature


def run(*, spec: DrawMiniature) -> None:
    """Draw the miniature datasets into a folder, one sub-folder each.

    spec: folder; seed; images: dataset -> how many. The same seed and numbers give the same bytes.
    """
    write_miniature(Path(spec.folder), spec.seed, spec.images)
