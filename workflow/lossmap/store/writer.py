"""Writing one part of an embedding store."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from tqdm import tqdm

from lossmap.store.format import CHUNK_BYTES, DIMENSIONS, FORMAT, RAGGED_FORMAT, StoreError
from lossmap.store.group_writer import GroupWriter, Growing
from lossmap.store.images import RAGGED_DIMENSIONS, layout_arrays
from lossmap.store.layouts import Layout

# Shards keep the number of files low on a cluster's file
# system, for half the reading speed of a file per chunk. No codec: zstd saves 8% and reads at 0.4 of the speed,
# blosc-lz4 saves nothing. XXH3 costs 6 to 9% of reading (SHA-256 54 to 68%); all that a reader checks, 8 to 10%.
SHARD_BYTES = 128 << 20
SHARDS = 8  # at least, where there are as many chunks: a small part, too, is written while the rest is embedded


class PartWriter:
    """Writes one part, batch by batch, holding at most one shard of each array in memory.

    Parameters: path, the part's folder, replaced if it is there; image_ids, its images in order; pre_shape (patches,
    features) and post_shape (tokens, features_out); dtype, "float16" or "float32", of pre and post; attributes, JSON
    values that describe how the embeddings were made, their "key" among them; store_post, whether post itself is stored
    (its means are); provenance, JSON values for readers, by which parts are not compared.
    Raises: StoreError, here and in its methods, if the disk is full or the folder may not be written.
    """

    def __init__(
        self,
        path: Path,
        image_ids: list[str],
        pre_shape: tuple[int, int],
        post_shape: tuple[int, int],
        dtype: str,
        attributes: dict,
        store_post: bool = True,
        provenance: dict | None = None,
    ):
        self.image_ids, self.written, self.provenance = list(image_ids), 0, provenance
        n = len(self.image_ids)
        post = {"shape": list(map(int, post_shape)), "dtype": str(np.dtype(dtype)), "stored": store_post}
        shapes = {
            "pre": (n, *pre_shape),
            "post": (n, *post_shape),
            "pre_mean": (n, pre_shape[1]),
            "post_mean": (n, post_shape[1]),
            "box": (n, 4),
            "size": (n, 2),
        }
        self.dtypes: dict[str, np.dtype] = {name: np.dtype("float32") for name in DIMENSIONS}
        self.dtypes |= {"pre": np.dtype(dtype), "post": np.dtype(dtype), "size": np.dtype("int32")}
        self.group = GroupWriter(path, {**attributes, "format": FORMAT, "post": post})
        self.path, self.partial = self.group.path, self.group.partial
        stored = [name for name in DIMENSIONS if name != "post" or store_post]
        self.arrays = {name: Growing(self._create(name, shapes[name])) for name in stored}
        self.group.create_names("image_id", self.image_ids, "image")

    def _create(self, name: str, shape: tuple) -> zarr.Array:
        chunk, shard = _rows(shape[0], int(np.prod(shape[1:])) * self.dtypes[name].itemsize)
        sizes = (chunk, *shape[1:]), (shard, *shape[1:])
        return self.group.create(name, shape, self.dtypes[name], DIMENSIONS[name], *sizes)

    def append(self, **batch: np.ndarray) -> None:
        """Add the next images. batch: one array per name of `DIMENSIONS`, the same number of rows in each; post, too,
        where it is not stored: it is checked.

        Means are taken before pre and post are rounded to the stored dtype. Raises StoreError where a value is not
        finite, as computed or after rounding, and names the image.
        """
        rows = {len(values) for values in batch.values()}
        if set(batch) != set(DIMENSIONS) or len(rows) != 1:
            raise ValueError(f"append wants {sorted(DIMENSIONS)} with equal rows, got {sorted(batch)} with {rows}")
        for name, values in batch.items():
            rounded = values.astype(self.dtypes[name], copy=False)
            check_finite(str(self.path), name, rounded, batch.get(f"{name}_mean"), self.image_ids[self.written :])
            if name in self.arrays:
                self.arrays[name].hold(rounded)
        self.written += rows.pop()
        with self.group.writing():
            for array in self.arrays.values():
                array.flush()

    def close(self) -> None:
        """Write what is left and the digest. Raises StoreError if images are missing or too many."""
        if self.written != len(self.image_ids):
            raise StoreError(f"{self.path}: {self.written} images were embedded, {len(self.image_ids)} were expected.")
        with self.group.writing():
            for array in self.arrays.values():
                array.flush(everything=True)
        self.group.finish(provenance=self.provenance)


class RaggedPartWriter:
    """Writes one part of images that differ in layout, batch by batch, as `PartWriter` one of images that are alike.

    How many rows pre and post will have is known when the last image is embedded: their arrays grow shard by shard, and
    at most one shard of each is held in memory. Layouts, some hundred bytes an image, are held until the end.

    Parameters: as `PartWriter`, but features and features_out, the widths of pre and of post.
    Raises: StoreError, here and in its methods, if the disk is full or the folder may not be written.
    """

    def __init__(
        self,
        path: Path,
        image_ids: list[str],
        features: int,
        features_out: int,
        dtype: str,
        attributes: dict,
        store_post: bool = True,
        provenance: dict | None = None,
    ):
        self.image_ids, self.written, self.provenance = list(image_ids), 0, provenance
        self.layouts: list[Layout] = []
        post = {"shape": [int(features_out)], "dtype": str(np.dtype(dtype)), "stored": store_post}
        self.group = GroupWriter(path, {**attributes, "format": RAGGED_FORMAT, "post": post})
        self.path, self.partial = self.group.path, self.group.partial
        self.widths = {"pre": int(features), "post": int(features_out)}
        self.dtypes = {"pre": np.dtype(dtype), "post": np.dtype(dtype)}
        self.flat = {
            name: _Flat(self._maker(name), width * self.dtypes[name].itemsize)
            for name, width in self.widths.items()
            if name != "post" or store_post
        }
        n = len(self.image_ids)
        self.means = {
            f"{name}_mean": Growing(self._maker(f"{name}_mean", width, "float32")(n, *_rows(n, 4 * width)))
            for name, width in self.widths.items()
        }
        self.group.create_names("image_id", self.image_ids, "image")

    def _maker(self, name: str, width: int | None = None, dtype=None) -> Callable[[int, int, int], zarr.Array]:
        """What makes an array of so many rows, in chunks and shards of so many."""
        width, dtype = width or self.widths[name], dtype or self.dtypes[name]
        return lambda rows, chunk, shard: self.group.create(
            name, (rows, width), dtype, RAGGED_DIMENSIONS[name], (chunk, width), (shard, width)
        )

    def append(self, **batch: Any) -> None:
        """Add the next images. batch: layouts, a list of `Layout`; their pre (patches, features) and post (tokens,
        features_out), one image after another; pre_mean and post_mean (images, features). Post, too, where it is not
        stored: it is checked.

        Means are taken before pre and post are rounded to the stored dtype. Raises StoreError where a value is not
        finite, as computed or after rounding, and names the image.
        """
        layouts, image_ids = list(batch["layouts"]), self.image_ids[self.written :]
        for name, values in checked_rows(str(self.path), batch, image_ids, self.dtypes):
            if values.shape[1] != self.widths[name.removesuffix("_mean")]:
                raise ValueError(f"append wants {name} of {self.widths}, got the shape {values.shape}")
            if held := self.flat.get(name) or self.means.get(name):
                held.hold(values)
        self.layouts += layouts
        self.written += len(layouts)
        with self.group.writing():
            self._flush()

    def close(self) -> None:
        """Write what is left and the digest. Raises StoreError if images are missing or too many."""
        if self.written != len(self.image_ids):
            raise StoreError(f"{self.path}: {self.written} images were embedded, {len(self.image_ids)} were expected.")
        with self.group.writing():
            self._flush(everything=True)
            for name, values in layout_arrays(self.layouts).items():
                chunk, shard = _rows(len(values), values.itemsize * int(np.prod(values.shape[1:])))
                sizes = (chunk, *values.shape[1:]), (shard, *values.shape[1:])
                self.group.create(name, values.shape, values.dtype, RAGGED_DIMENSIONS[name], *sizes)[:] = values
        self.group.finish(provenance=self.provenance)

    def _flush(self, everything: bool = False) -> None:
        for flat in self.flat.values():
            flat.flush(everything)
        for means in self.means.values():
            means.flush(everything)


class _Flat:
    """Rows whose number isn't known before all are there. Their array is made when a shard is full, or of all at once:
    then its chunks are cut as where the number is known, so that a small part takes no more room than it needs. Either
    way they don't depend on the batches that the rows came in.

    Parameters: make(rows, chunk, shard), which makes the array; row_bytes.
    """

    def __init__(self, make: Callable[[int, int, int], zarr.Array], row_bytes: int):
        self.make, self.row_bytes = make, row_bytes
        self.held: list[np.ndarray] = []
        self.growing: Growing | None = None

    def hold(self, values: np.ndarray) -> None:
        self.held.append(values)

    def flush(self, everything: bool = False) -> None:
        """Write the rows that fill files, or all that are held."""
        if self.growing is None:
            chunk = max(1, CHUNK_BYTES // self.row_bytes)
            shard = chunk * max(1, SHARD_BYTES // (chunk * self.row_bytes))
            rows = sum(map(len, self.held))
            if rows >= shard:
                self.growing = Growing(self.make(shard, chunk, shard))
            elif everything:
                self.growing = Growing(self.make(rows, *_rows(rows, self.row_bytes)))
            else:
                return
        for values in self.held:
            self.growing.hold(values)
        self.held = []
        self.growing.flush(everything)


def _rows(rows: int, row_bytes: int) -> tuple[int, int]:
    """Rows of a chunk and of a shard of an array of so many rows."""
    rows, chunk = max(1, rows), max(1, CHUNK_BYTES // row_bytes)
    chunk = -(-rows // -(-rows // chunk))  # evenly: Zarr fills a last chunk up to the size of the others
    chunks = -(-rows // chunk)
    return chunk, chunk * max(1, min(SHARD_BYTES // (chunk * row_bytes), chunks // SHARDS))


def write_part(
    embedded: Iterable[Mapping[str, Any]],
    path: Path,
    image_ids: list[str],
    dtype: str,
    attributes: dict,
    store_post: bool = True,
    what: str = "images",
    provenance: dict | None = None,
) -> None:
    """Write one part of what is embedded, batch by batch, as it comes.

    Parameters: embedded, batches for `PartWriter.append`, or for `RaggedPartWriter.append` if they hold layouts; the
        others as for `PartWriter`. what: names the progress bar.
    Raises: StoreError as `PartWriter`.
    """
    writer: PartWriter | RaggedPartWriter | None = None
    with tqdm(total=len(image_ids), unit="image", desc=what) as progress:
        for batch in embedded:
            if writer is None:
                one, other = batch["pre"].shape[1:], batch["post"].shape[1:]
                if "layouts" in batch:
                    (features,), (features_out,) = one, other
                    writer = RaggedPartWriter(
                        path, image_ids, features, features_out, dtype, attributes, store_post, provenance
                    )
                else:
                    writer = PartWriter(path, image_ids, one, other, dtype, attributes, store_post, provenance)
            writer.append(**batch)
            progress.update(len(batch["pre_mean"]))
    if writer is None:
        raise StoreError(f"{path}: there are no {what} to write.")
    writer.close()


def checked_rows(
    where: str, batch: Mapping[str, Any], image_ids: Sequence[str], dtypes: Mapping[str, np.dtype]
) -> list[tuple[str, np.ndarray]]:
    """pre, post and their means of a batch for `RaggedPartWriter.append`, as they are kept: pre and post in these
    dtypes, means in float32.

    Raises: ValueError if there are other numbers of rows than the layouts say; StoreError where a value is not finite,
        naming the image. where: what its message begins with.
    """
    shapes = [layout.shape for layout in batch["layouts"]]
    rows = {"pre": [shape.patches for shape in shapes], "post": [shape.tokens for shape in shapes]}
    wanted = {name: sum(each) for name, each in rows.items()} | dict.fromkeys(("pre_mean", "post_mean"), len(shapes))
    found = {name: len(values) for name, values in batch.items() if name != "layouts"}
    if found != wanted:
        raise ValueError(f"{where}: a batch has {found} rows, of its {len(shapes)} layouts are wanted {wanted}")
    if any(len(layout.boxes) != len(layout.shape.views) for layout in batch["layouts"]):
        raise ValueError(f"{where}: a layout has not as many boxes as views")
    kept = []
    for name, given in batch.items():
        if name != "layouts":
            values = given.astype(dtypes.get(name, np.dtype("float32")), copy=False)
            offsets = np.concatenate([[0], np.cumsum(rows[name])]) if name in rows else None
            check_finite(where, name, values, batch.get(f"{name}_mean"), image_ids, offsets)
            kept.append((name, values))
    return kept


def check_finite(
    where: str,
    name: str,
    values: np.ndarray,
    means: np.ndarray | None,
    image_ids: Sequence[str],
    offsets: np.ndarray | None = None,
) -> None:
    """Raise StoreError at the first image that has a value which is not finite.

    Parameters: where, what messages begin with; name, of the array; values, (images, ...) as rounded; means, of each
        image, taken before rounding, where there are any: if they are finite, the dtype alone is too narrow; offsets,
        where each image's rows begin, if values are the rows of all images, one after another.
    """
    finite = np.isfinite(values)
    if finite.all():
        return
    row = int(np.argmin(finite.reshape(len(values), -1).all(axis=1)))
    if offsets is not None:
        row = int(np.searchsorted(offsets, row, side="right")) - 1
    if means is not None and np.isfinite(means[row]).all():
        raise StoreError(
            f"{where}: {name} of image {image_ids[row]} holds a value beyond the range of {values.dtype}. "
            "Set extraction: dtype: float32 in the configuration."
        )
    raise StoreError(
        f"{where}: {name} of image {image_ids[row]} is not finite (NaN or infinity): the model overflowed, "
        "or its weights are damaged. Against overflow, set extraction: compute_dtype: bfloat16 or float32."
    )
