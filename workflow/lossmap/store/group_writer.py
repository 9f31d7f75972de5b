"""Writing a Zarr group with the digests of its files, whole or not at all."""

import errno
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr

from lossmap.store.files import WrittenFiles
from lossmap.store.format import PROVENANCE, ROOT, StoreError, description_digest, read_json, write_json


class GroupWriter:
    """A group that grows under a temporary name beside its place and is moved there when it is whole, so that a run
    that was killed leaves nothing that looks finished.

    Parameters: path, the group's folder, replaced if it is there; attributes, JSON values.
    Raises: StoreError, here and in its methods, if the disk is full or the folder may not be written.
    """

    def __init__(self, path: Path, attributes: dict):
        self.path = Path(path)
        self.partial = self.path.with_name(f".{self.path.name}.partial")
        self.files = WrittenFiles(self.partial)
        with self.writing():
            _remove(self.partial)
            attributes = {**attributes, "coordinates": "image_id"}
            self.group = zarr.create_group(self.files, zarr_format=3, attributes=attributes)

    def create(self, name: str, shape: tuple, dtype, dimensions: tuple, chunks: tuple, shards=None) -> zarr.Array:
        """An array that is digested in blocks of one chunk."""
        self.files.blocks[name] = int(np.prod(chunks)) * np.dtype(dtype).itemsize
        with self.writing():
            return self.group.create_array(
                name,
                shape=shape,
                dtype=dtype,
                chunks=chunks,
                shards=shards,
                compressors=None,
                dimension_names=dimensions,
                # Without this an all-zero chunk is no file, which looks like a lost one.
                config={"write_empty_chunks": True},
            )

    def create_names(self, name: str, values: list[str], dimension: str) -> None:
        """Write an array of texts in one file."""
        n = len(values)
        with self.writing():
            array = self.group.create_array(
                name, shape=(n,), dtype=str, chunks=(n,), compressors=None, dimension_names=(dimension,)
            )
            array[:] = np.array(values, dtype=object)

    def finish(self, sealed: bool = False, provenance: dict | None = None) -> None:
        """Write the digests, and move the group to its place.

        Parameters: sealed, zarr.json holds a digest of itself, too, where no index does; provenance, JSON values for
        readers, which no digest covers.
        """
        with self.writing():
            with warnings.catch_warnings(action="ignore"):  # Zarr v3 has it, its specification not yet
                zarr.consolidate_metadata(self.files)
            content, _ = read_json(self.partial / ROOT)
            files = {name: entry._asdict() for name, entry in self.files.files.items() if name != ROOT}
            content["attributes"]["files"] = files
            if sealed:
                content["attributes"]["digest"] = description_digest(content)
            write_json(self.partial / ROOT, content)
            if provenance is not None:
                write_json(self.partial / PROVENANCE, provenance)
            _remove(self.path)
            os.replace(self.partial, self.path)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Faults of the disk in words. What was written is removed: it takes room, and will be made anew."""
        try:
            yield
        except OSError as error:
            self.files.stop()
            _remove(self.partial, ignore_errors=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreError(
                    f"the disk is full: {self.path} can't be written ({error.strerror}).",
                    "Free space there and run again; parts that are finished are kept.",
                ) from error
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise StoreError(
                    f"{self.path}: can't be written ({error.strerror}).",
                    f"Make {self.path.parent} writable, or run the study in a folder of your own.",
                ) from error
            raise


class Growing:
    """An array that is written along one axis, in whole files: writing part of a file costs a re-read.

    Parameters: array, which is made longer where more is written than it holds; axis, on which its images lie.
    """

    def __init__(self, array: zarr.Array, axis: int = 0):
        self.array, self.axis, self.written = array, axis, 0
        self.held: list[np.ndarray] = []
        self.rows = (array.shards or array.chunks)[axis]  # images of a file

    def hold(self, values: np.ndarray) -> None:
        """Keep the next images in memory."""
        self.held.append(values)

    def flush(self, everything: bool = False) -> None:
        """Write the images that fill files, or all that are held."""
        held = sum(values.shape[self.axis] for values in self.held)
        whole = held if everything else held - held % self.rows
        if not whole:
            return
        values, before = np.concatenate(self.held, axis=self.axis), (slice(None),) * self.axis
        stop = self.written + whole
        if stop > (shape := self.array.shape)[self.axis]:
            self.array.resize((*shape[: self.axis], stop, *shape[self.axis + 1 :]))
        self.array[*before, self.written : stop] = values[*before, :whole]
        self.written = stop
        self.held = [values[*before, whole:].copy()] if whole < held else []  # a view would keep all of it


def _remove(path: Path, ignore_errors: bool = False) -> None:
    """Remove a folder, or a link to one, which Snakemake's cache between workflows puts in a store's place."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path, ignore_errors)
