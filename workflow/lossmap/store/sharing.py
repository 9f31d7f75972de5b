"""Equal patches of two stores on disk once: of models whose vision towers and preprocessing are the same."""

import errno
import os
from pathlib import Path
from typing import NamedTuple

from lossmap.store.checking import parts_of
from lossmap.store.files import changed_blocks
from lossmap.store.format import StoreError
from lossmap.store.parts import Part

SHARED = "pre"
NO_LINKS = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK}


class Sharing(NamedTuple):
    """bytes of pre in the second store; equal, of them in files that are the same, byte by byte, as the first store's
    file of that name; shared, of those on disk once."""

    bytes: int
    equal: int
    shared: int


def share_pre(first: Path, second: Path) -> Sharing:
    """Keep what two stores of the same images hold of pre in equal files on disk once, by hard links.

    A file of the second store whose digests are those of the first's is replaced, in one step, by a link to it, once
    its bytes have been read and found whole. Both stores stay complete: each can be read, verified and deleted without
    the other. Where the file system has no links, both files stay. A second call changes nothing.

    Parameters: first, second: indexes of stores. Returns: Sharing.
    Raises: StoreError if an index is damaged.
    """
    others = {part.path.name: part for part in parts_of(first)[0]}
    total = equal = shared = 0
    for part in parts_of(second)[0]:
        other = others.get(part.path.name)
        for name, entry in part.files.items():
            if not name.startswith(f"{SHARED}/c/"):
                continue
            total += entry.size
            if other is not None and other.files.get(name) == entry:
                equal += entry.size
                shared += entry.size * _linked(other, part, name)
    return Sharing(total, equal, shared)


def _linked(source: Part, target: Part, name: str) -> bool:
    """Whether both parts' file of this name is one on disk, now that it has been tried."""
    kept, doubled = source.path / name, target.path / name
    if kept.samefile(doubled):
        return True
    if changed_blocks(kept, source.files[name]):
        raise StoreError(source.changed(name, source.held(name)), source.remedy)
    partial = doubled.with_name(f".{doubled.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(kept.resolve(), partial)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False
    os.replace(partial, doubled)
    return True
