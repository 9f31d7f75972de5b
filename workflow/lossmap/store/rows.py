"""Arrays of an embedding store for xarray: nothing is read before values are asked for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from lossmap.store.format import StoreError
from lossmap.store.parts import Part

# Images whose post is computed at once where it is not stored, by the bytes of their pre and post.
RECOMPUTED_BYTES = 1 << 28


class Rows(BackendArray):
    """One array over all parts. `rows` gives some images, in any order; other axes are cut afterwards."""

    def __init__(self, parts: list[Part], name: str):
        self.parts, self.name = parts, name
        about = parts[0].description["arrays"][name]
        self.shape = (parts[-1].stop, *about["shape"])
        self.dtype = np.dtype(about["dtype"])

    def __getitem__(self, key):
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple) -> np.ndarray:
        rows, rest = key[0], key[1:]
        if isinstance(rows, slice):
            rows = np.arange(self.shape[0])[rows]
        values = self.rows(np.atleast_1d(np.asarray(rows, dtype=np.int64)))
        if np.ndim(rows) == 0:
            values = values[0]
        # One axis at a time, the last first: NumPy would pair several integer arrays, xarray means their cross product.
        for axis, selection in reversed(list(enumerate(rest, start=np.ndim(rows)))):
            values = values[(slice(None),) * axis + (selection,)]
        return values

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Images by number, as stored."""
        pieces = []
        for part in self.parts:
            inside = np.flatnonzero((rows >= part.start) & (rows < part.stop))
            if not len(inside):
                continue
            own = rows[inside] - part.start
            contiguous = len(own) == own[-1] - own[0] + 1 and (np.diff(own) == 1).all()
            picked = part.read(self.name, slice(int(own[0]), int(own[-1]) + 1) if contiguous else own)
            if len(inside) == len(rows):
                return picked
            pieces.append((inside, picked))
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for inside, picked in pieces:
            values[inside] = picked
        return values


class Derived(Rows):
    """An array computed from another of the same images, for those that are asked for.

    Parameters: source, of a Dataset, images first; shape, of what function makes of one image; function, values of some
        images -> (images, *shape) of the same dtype.
    """

    def __init__(self, source: xr.DataArray, shape: tuple[int, ...], function: Callable[[np.ndarray], np.ndarray]):
        self.source, self.function = source, function
        self.shape, self.dtype = (source.shape[0], *shape), source.dtype

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Images by number."""
        return self.function(self.source[rows].values)


class Recomputed(Rows):
    """Post that is not stored: computed from the pre of the images that are asked for, in blocks of bounded size."""

    def __init__(self, parts: list[Part], recompute: Callable[[np.ndarray], np.ndarray] | None, index: Path):
        super().__init__(parts, "post")
        self.pre, self.recompute, self.index = Rows(parts, "pre"), recompute, index
        image_bytes = sum(array.dtype.itemsize * int(np.prod(array.shape[1:])) for array in (self, self.pre))
        self.block = max(1, RECOMPUTED_BYTES // image_bytes)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Images by number, rounded to the dtype in which post would be stored."""
        if self.recompute is None:
            raise StoreError(
                f"{self.index}: post is not stored (store_post: false).",
                "Open it with open_store(index, recompute=...), a function that computes post from pre.",
            )
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for start in range(0, len(rows), self.block):
            images = rows[start : start + self.block]
            post = np.asarray(self.recompute(self.pre.rows(images)))
            if post.shape != (len(images), *self.shape[1:]):
                raise StoreError(
                    f"{self.index}: post of {len(images)} images was recomputed with the shape {post.shape}, wanted "
                    f"{(len(images), *self.shape[1:])}.",
                    "The connector is not the one that the store was made with: give the same checkpoint and revision.",
                )
            with np.errstate(over="ignore"):
                values[start : start + self.block] = post
            self._check_finite(images, values[start : start + self.block])
        return values

    def _check_finite(self, images: np.ndarray, post: np.ndarray) -> None:
        finite = np.isfinite(post).reshape(len(post), -1).all(axis=1)
        if not finite.all():
            image = images[int(np.argmin(finite))]
            part = next(part for part in self.parts if image < part.stop)
            raise StoreError(
                f"{self.index}: post of image {part.image_ids[image - part.start]}, recomputed, is not finite in "
                f"{self.dtype}; it was when the store was made.",
                "Recompute in the store's compute_dtype, or extract again with store_post: true.",
            )
