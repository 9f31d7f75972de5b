"""Checking all of a store: every byte of every part, and nothing that does not belong."""

import json
import os
from pathlib import Path

from lossmap.store.format import PROVENANCE, ROOT, StoreError, remedy
from lossmap.store.index import read_index
from lossmap.store.parts import Part

ENTRY = ("path", "digest", "first_image", "last_image")
# Snakemake marks a folder that a rule has made with a file of its own.
STRANGERS_ALLOWED = {ROOT, PROVENANCE, ".snakemake_timestamp"}


def parts_of(index: Path) -> tuple[list[Part], list[str]]:
    """The parts of a store whose descriptions are whole, and what is wrong with the others, one line each.

    Raises: StoreError if the index itself is damaged.
    """
    parts, problems = [], []
    try:
        entries = [[entry[key] for key in ENTRY] for entry in read_index(index)["parts"]]
    except (KeyError, TypeError) as fault:
        raise StoreError(f"{index}: this is no whole index of embeddings ({fault!r}).", remedy(index)) from fault
    for path, digest, first_image, last_image in entries:
        try:
            parts.append(Part(index.parent / path, index, digest))
        except StoreError as error:
            problems.append(f"{error.found.rstrip('.')}; it holds images {first_image} to {last_image}.")
    return parts, problems


def strangers(part: Part) -> list[str]:
    """Files in a part's folder that were not written with it."""
    places = (Path(folder, name) for folder, _, names in os.walk(part.path, followlinks=True) for name in names)
    names = sorted(place.relative_to(part.path).as_posix() for place in places)
    extra = [name for name in names if name not in part.files and name not in STRANGERS_ALLOWED]
    return [f"{part.path / name}: this file does not belong to the store." for name in extra]


def makers(parts: list[Part]) -> list[tuple[dict, list[Part]]]:
    """The parts by their provenance: which code and software made them.

    Raises: StoreError if the provenance of one can't be read.
    """
    found: dict[str, tuple[dict, list[Part]]] = {}
    for part in parts:
        made = part.provenance()
        found.setdefault(json.dumps(made, sort_keys=True), (made, []))[1].append(part)
    return list(found.values())
