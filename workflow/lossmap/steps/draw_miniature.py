"""Handwritten digits -> the eight miniature datasets, in the formats of the published ones."""

from pathlib import Path

from lossmap.data.miniature import write_miniature


def run(*, folder: Path, spec: dict) -> None:
    """Draw the miniature datasets into a folder, one sub-folder each.

    spec: seed, and images: dataset -> how many. The same spec gives the same bytes.
    """
    write_miniature(folder, spec["seed"], spec["images"])
