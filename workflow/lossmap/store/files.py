"""Files of a Zarr group with digests: kept when a file is written, compared with whatever is read.

Zarr's own checksums cost more than the reading itself, and it reads a missing file as zeros. So each file is digested
in blocks of one chunk: who reads one chunk of a large shard checks that chunk alone, each time, in the memory that Zarr
is given.
"""

import asyncio
import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore

DIGITS = 32  # of one block's digest: XXH3, 128 bits, in hexadecimal


class Digests(NamedTuple):
    """What a file was when it was written."""

    size: int  # bytes
    block: int  # bytes; the last block may be shorter
    xxh3_128: str  # of the blocks in order, DIGITS each, one after the other

    def read(self, file, block: int, data: memoryview) -> bool:
        """Read the next bytes of an open file, which should be a block's, into data. Returns whether they are."""
        filled = 0
        while filled < len(data) and (count := file.readinto(data[filled:])):  # one call gives at most 2 GB
            filled += count
        wanted = self.xxh3_128[block * DIGITS : (block + 1) * DIGITS]
        return filled == len(data) and xxhash.xxh3_128_hexdigest(data) == wanted


def digests(data: bytes | memoryview, block: int | None = None) -> Digests:
    """Digests of a file's bytes, in blocks of `block` bytes (by default one)."""
    data = memoryview(data).cast("B")
    block = max(1, min(block or len(data), len(data)))
    each = (xxhash.xxh3_128_hexdigest(data[start : start + block]) for start in range(0, len(data), block))
    return Digests(len(data), block, "".join(each))


class WrittenFiles(LocalStore):
    """A folder that Zarr writes to. `files` holds the digests of what was given to be written, by file name, so that a
    byte that changes on its way to the disk is found, too. `blocks` may hold bytes of a block by name of an array.
    """

    def __init__(self, root: Path):
        super().__init__(root)
        self.blocks: dict[str, int] = {}
        self.files: dict[str, Digests] = {}
        self.stopped, self.under_way, self.change = False, 0, threading.Condition()

    async def set(self, key: str, value) -> None:
        with self.change:
            if self.stopped:
                raise OSError(errno.ECANCELED, "another file could not be written", key)
            self.under_way += 1
        try:
            await super().set(key, value)
            data = memoryview(value.as_buffer_like())
            self.files[key] = await asyncio.to_thread(digests, data, self.blocks.get(key.split("/")[0]))
        finally:
            with self.change:
                self.under_way -= 1
                self.change.notify_all()

    def stop(self) -> None:
        """Take no more files, and wait for those under way: where one can't be written, Zarr goes on with others."""
        with self.change:
            self.stopped = True
            self.change.wait_for(lambda: not self.under_way)


class CheckedFiles(LocalStore):
    """A folder that Zarr reads from. Every byte that Zarr is given is what was written.

    Parameters: root, the folder; files, digests by file name; fault(name, block), the error to raise where a file was
    changed in that block, or (block None) can't be read.
    """

    def __init__(self, root: Path, files: dict[str, Digests], fault: Callable[[str, int | None], Exception]):
        super().__init__(root, read_only=True)
        self.files, self.fault = files, fault

    async def get(self, key: str, prototype=None, byte_range=None):
        data = await asyncio.to_thread(self.read, key, byte_range)
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    def read(self, name: str, byte_range=None) -> memoryview:
        """Bytes of a file, all or a range in Zarr's terms: the blocks that hold the range are read and checked."""
        entry = self.files.get(name)
        if entry is None:
            raise self.fault(name, None)
        start, stop = _bounds(byte_range, entry.size)
        first = start // entry.block
        begin, end = first * entry.block, min(-(-stop // entry.block) * entry.block, entry.size)
        data = np.empty(end - begin, "B").data
        try:
            with (self.root / name).open("rb", buffering=0) as file:
                file.seek(begin)
                # Block by block, so that the digest is taken while the bytes lie in the processor's cache.
                for place in range(0, len(data), entry.block):
                    block = first + place // entry.block
                    if not entry.read(file, block, data[place : place + entry.block]):
                        raise self.fault(name, block)
        except OSError as error:
            raise self.fault(name, None) from error
        return data[start - begin : stop - begin]


def changed_blocks(path: Path, entry: Digests) -> list[int]:
    """All blocks of a file that are not what was written."""
    memory = memoryview(bytearray(entry.block))
    with path.open("rb", buffering=0) as file:
        starts = enumerate(range(0, entry.size, entry.block))
        return [block for block, start in starts if not entry.read(file, block, memory[: entry.size - start])]


def _bounds(byte_range, size: int) -> tuple[int, int]:
    match byte_range:
        case None:
            return 0, size
        case RangeByteRequest(start, end):
            return start, min(end, size)
        case OffsetByteRequest(offset):
            return offset, size
        case SuffixByteRequest(suffix):
            return max(0, size - suffix), size
    raise TypeError(f"a byte range of an unknown kind: {byte_range!r}")
