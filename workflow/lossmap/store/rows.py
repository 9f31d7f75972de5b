"""Arrays of an embedding store for xarray: nothing is read before values are asked for."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from lossmap.store.format import StoreError
from lossmap.store.images import Images
from lossmap.store.layouts import Shape
from lossmap.store.parts import Part

# Images whose post is computed at once where it is not stored, by the bytes of their pre and post.
RECOMPUTED_BYTES = 1 << 28


class Rows(BackendArray):
    """One array over all parts. `rows` gives some rows, in any order; other axes are cut afterwards. A row is an image,
    or in a ragged store what the array's first axis says: a patch, a token, a view, a span."""

    def __init__(self, parts: list[Part], name: str):
        self.parts, self.name = parts, name
        self.starts = np.cumsum([0, *(part.length(name) for part in parts)], dtype=np.int64)
        about = parts[0].description["arrays"][name]
        self.shape = (int(self.starts[-1]), *about["shape"])
        self.dtype = np.dtype(about["dtype"])

    def __getitem__(self, key):
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple) -> np.ndarray:
        rows, rest = key[0], key[1:]
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.shape[0]))  # of the slice alone: all patches of a store are very many
        values = self.rows(np.atleast_1d(np.asarray(rows, dtype=np.int64)))
        if np.ndim(rows) == 0:
            values = values[0]
        # One axis at a time, the last first: NumPy would pair several integer arrays, xarray means their cross product.
        for axis, selection in reversed(list(enumerate(rest, start=np.ndim(rows)))):
            values = values[(slice(None),) * axis + (selection,)]
        return values

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Rows by number, as stored."""
        pieces = []
        for part, start, stop in zip(self.parts, self.starts[:-1], self.starts[1:], strict=True):
            inside = np.flatnonzero((rows >= start) & (rows < stop))
            if not len(inside):
                continue
            own = rows[inside] - start
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


class Offsets(Rows):
    """Where the rows of each image of a ragged store begin: the offsets of the parts added up, read once."""

    def __init__(self, parts: list[Part], name: str):
        super().__init__(parts, name)
        self.shape = (parts[-1].stop + 1,)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Bounds by number."""
        return self.all[rows]

    @cached_property
    def all(self) -> np.ndarray:
        """(images + 1,) int64."""
        found = np.zeros(self.shape, np.int64)
        for part in self.parts:
            found[part.start + 1 : part.stop + 1] = found[part.start] + part.read(self.name, slice(1, None))
        return found


class ByImage(Rows):
    """pre, post or what else there is for each patch or token of a ragged Dataset, computed of the images that the rows
    asked for belong to, in blocks of bounded size.

    Parameters: source, a ragged Dataset; axis, "patch" or "token"; length, its rows; width and dtype of a row;
        row_bytes, of a patch and of a token, by which blocks are bounded; compute(images, shape), numbers of images of
        that shape in order -> (images, rows, width), of this dtype.
    """

    def __init__(
        self,
        source: xr.Dataset,
        axis: str,
        length: int,
        width: int,
        dtype: np.dtype,
        row_bytes: tuple[int, int],
        compute: Callable[[np.ndarray, Shape], np.ndarray],
    ):
        self.source, self.axis, self.row_bytes, self.compute = source, axis, row_bytes, compute
        self.shape, self.dtype = (length, width), dtype

    @cached_property
    def images(self) -> Images:
        return Images(self.source)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Rows by number."""
        values = np.empty((len(rows), self.shape[1]), self.dtype)
        if not len(rows):
            return values
        offsets = self.images.offsets[f"{self.axis}_offset"]
        owners = np.searchsorted(offsets, rows, side="right") - 1
        order = np.argsort(owners, kind="stable")
        images, starts = np.unique(owners[order], return_index=True)
        stops = np.append(starts[1:], len(rows))
        for positions, shape in self.images.alike(images):
            image_bytes = shape.patches * self.row_bytes[0] + shape.tokens * self.row_bytes[1]
            block = max(1, RECOMPUTED_BYTES // max(1, image_bytes))
            for start in range(0, len(positions), block):
                some = positions[start : start + block]
                for one, position in zip(self.compute(images[some], shape), some, strict=True):
                    places = order[starts[position] : stops[position]]
                    values[places] = one[rows[places] - offsets[images[position]]]
        return values


class Recompute:
    """post of images of a store without post, by its model's connector.

    Parameters: parts, of the store; recompute, see `open_store`; index, the store's.
    """

    def __init__(self, parts: list[Part], recompute: Callable[..., np.ndarray] | None, index: Path):
        self.parts, self.recompute, self.index = parts, recompute, index
        self.dtype = np.dtype(parts[0].description["arrays"]["post"]["dtype"])

    def __call__(self, images: np.ndarray, wanted: tuple[int, ...], *given: Any) -> np.ndarray:
        """(images, *wanted), rounded to the dtype in which post would be stored.

        Parameters: images, by number, for messages; wanted, (tokens, features_out); given, to the connector.
        Raises: StoreError if there is none, or it gives something else than finite post.
        """
        if self.recompute is None:
            raise StoreError(
                f"{self.index}: post is not stored (store_post: false).",
                "Open it with open_store(index, recompute=...), a function that computes post from pre.",
            )
        post = np.asarray(self.recompute(*given))
        if post.shape != (len(images), *wanted):
            raise StoreError(
                f"{self.index}: post of {len(images)} images was recomputed with the shape {post.shape}, wanted "
                f"{(len(images), *wanted)}.",
                "The connector is not the one that the store was made with: give the same checkpoint and revision.",
            )
        with np.errstate(over="ignore"):
            values = post.astype(self.dtype)
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            image = images[int(np.argmin(finite))]
            part = next(part for part in self.parts if image < part.stop)
            raise StoreError(
                f"{self.index}: post of image {part.image_ids[image - part.start]}, recomputed, is not finite in "
                f"{self.dtype}; it was when the store was made.",
                "Recompute in the store's compute_dtype, or extract again with store_post: true.",
            )
        return values


class Recomputed(Rows):
    """Post that is not stored: computed from the pre of the images that are asked for, in blocks of bounded size."""

    def __init__(self, parts: list[Part], recompute: Recompute):
        super().__init__(parts, "post")
        self.pre, self.recompute = Rows(parts, "pre"), recompute
        image_bytes = sum(array.dtype.itemsize * int(np.prod(array.shape[1:])) for array in (self, self.pre))
        self.block = max(1, RECOMPUTED_BYTES // image_bytes)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Images by number, rounded to the dtype in which post would be stored."""
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for start in range(0, len(rows), self.block):
            images = rows[start : start + self.block]
            values[start : start + self.block] = self.recompute(images, self.shape[1:], self.pre.rows(images))
        return values


def recomputed_by_image(store: xr.Dataset, parts: list[Part], recompute: Recompute) -> ByImage:
    """Post of a ragged store that holds none, of the images that the rows asked for belong to.

    Parameters: store, without post; parts, its own.
    """
    about = parts[0].description["arrays"]["post"]
    width, pre = about["shape"][0], store["pre"]

    def compute(images: np.ndarray, shape: Shape) -> np.ndarray:
        return recompute(images, (shape.tokens, width), post.images.read("pre", images), shape)

    length = int(Offsets(parts, "token_offset").all[-1])
    row_bytes = pre.dtype.itemsize * pre.shape[1], recompute.dtype.itemsize * width
    post = ByImage(store, "token", length, width, recompute.dtype, row_bytes, compute)
    return post
