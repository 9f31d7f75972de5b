"""Parts -> the index of an embedding store."""

from pathlib import Path

from lossmap.store import open_store, write_index


def run(*, parts: list[Path], index: Path) -> None:
    """Gather the parts of a store, in order, into the small file that downstream steps read."""
    write_index(parts, index)
    open_store(index)
