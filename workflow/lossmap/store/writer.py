"""Writing one part of an embedding store."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import zarr
from tqdm import tqdm

from lossmap.store.format import CHUNK_BYTES, DIMENSIONS, FORMAT, StoreError
from lossmap.store.group_writer import GroupWriter, Growing

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
        row_bytes = int(np.prod(shape[1:])) * self.dtypes[name].itemsize
        chunk = max(1, CHUNK_BYTES // row_bytes)
        chunk = -(-shape[0] // -(-shape[0] // chunk))  # evenly: Zarr fills a last chunk up to the size of the others
        chunks = -(-shape[0] // chunk)
        shard = chunk * max(1, min(SHARD_BYTES // (chunk * row_bytes), chunks // SHARDS))
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


def write_part(
    embedded: Iterable[dict[str, np.ndarray]],
    path: Path,
    image_ids: list[str],
    dtype: str,
    attributes: dict,
    store_post: bool = True,
    what: str = "images",
    provenance: dict | None = None,
) -> None:
    """Write one part of what is embedded, batch by batch, as it comes.

    Parameters: embedded, batches for `PartWriter.append`; the others as for `PartWriter`. what: names the progress bar.
    Raises: StoreError as `PartWriter`.
    """
    writer = None
    with tqdm(total=len(image_ids), unit="image", desc=what) as progress:
        for batch in embedded:
            if writer is None:
                shapes = batch["pre"].shape[1:], batch["post"].shape[1:]
                writer = PartWriter(path, image_ids, *shapes, dtype, attributes, store_post, provenance)
            writer.append(**batch)
            progress.update(len(batch["pre"]))
    if writer is None:
        raise StoreError(f"{path}: there are no {what} to write.")
    writer.close()


def check_finite(where: str, name: str, values: np.ndarray, means: np.ndarray | None, image_ids: list[str]) -> None:
    """Raise StoreError at the first image that has a value which is not finite.

    Parameters: where, what messages begin with; name, of the array; values, (images, ...) as rounded; means, of each
        image, taken before rounding, where there are any: if they are finite, the dtype alone is too narrow.
    """
    finite = np.isfinite(values)
    if finite.all():
        return
    row = int(np.argmin(finite.reshape(len(values), -1).all(axis=1)))
    if means is not None and np.isfinite(means[row]).all():
        raise StoreError(
            f"{where}: {name} of image {image_ids[row]} holds a value beyond the range of {values.dtype}. "
            "Set extraction: dtype: float32 in the configuration."
        )
    raise StoreError(
        f"{where}: {name} of image {image_ids[row]} is not finite (NaN or infinity): the model overflowed, "
        "or its weights are damaged. Against overflow, set extraction: compute_dtype: bfloat16 or float32."
    )
