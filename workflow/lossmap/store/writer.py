"""Writing one part of an embedding store."""

import errno
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr
from tqdm import tqdm

from lossmap.store.files import WrittenFiles
from lossmap.store.format import DIMENSIONS, FORMAT, StoreError, read_json, write_json

# Chosen by tests/bench/bench_store.py, with 1.2 MB an image. Chunks of 1 MB read a whole part at 0.7 of the speed of
# 4 MB, those of 16 MB read 32 random images at 0.65 of it. Shards keep the number of files low on a cluster's file
# system, for half the reading speed of a file per chunk. No codec: zstd saves 8% and reads at 0.4 of the speed,
# blosc-lz4 saves nothing. XXH3 costs 6 to 9% of reading (SHA-256 54 to 68%); all that a reader checks, 8 to 10%.
CHUNK_BYTES = 4 << 20
SHARD_BYTES = 128 << 20
SHARDS = 8  # at least, where there are as many chunks: a small part, too, is written while the rest is embedded


class PartWriter:
    """Writes one part, batch by batch, holding at most one shard of each array in memory.

    It grows under a temporary name beside its place and is moved there when it is whole, so that a run that was killed
    leaves nothing that looks finished.

    Parameters: path, the part's folder, replaced if it is there; image_ids, its images in order; pre_shape (patches,
    features) and post_shape (tokens, features_out); dtype, "float16" or "float32", of pre and post; attributes, JSON
    values that describe how the embeddings were made; store_post, whether post itself is stored (its means are).
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
    ):
        self.path, self.image_ids, self.written = Path(path), list(image_ids), 0
        self.partial = self.path.with_name(f".{self.path.name}.partial")
        n = len(self.image_ids)
        post = {"shape": list(map(int, post_shape)), "dtype": str(np.dtype(dtype)), "stored": store_post}
        attributes = {**attributes, "coordinates": "image_id", "format": FORMAT, "post": post}
        shapes = {
            "pre": (n, *pre_shape),
            "post": (n, *post_shape),
            "pre_mean": (n, pre_shape[1]),
            "post_mean": (n, post_shape[1]),
            "box": (n, 4),
            "size": (n, 2),
        }
        self.dtypes = {name: np.dtype("float32") for name in DIMENSIONS}
        self.dtypes |= {"pre": np.dtype(dtype), "post": np.dtype(dtype), "size": np.dtype("int32")}
        stored = [name for name in DIMENSIONS if name != "post" or store_post]
        self.buffers, self.positions = {name: [] for name in stored}, dict.fromkeys(stored, 0)
        with self._writing():
            _remove(self.partial)
            self.files = WrittenFiles(self.partial)
            self.group = zarr.create_group(self.files, zarr_format=3, attributes=attributes)
            self.arrays = {name: self._create(name, shapes[name]) for name in stored}
            ids = self.group.create_array(
                "image_id", shape=(n,), dtype=str, chunks=(n,), compressors=None, dimension_names=("image",)
            )
            ids[:] = np.array(self.image_ids, dtype=object)

    def _create(self, name: str, shape: tuple) -> zarr.Array:
        row_bytes = int(np.prod(shape[1:])) * self.dtypes[name].itemsize
        chunk = max(1, CHUNK_BYTES // row_bytes)
        chunk = -(-shape[0] // -(-shape[0] // chunk))  # evenly: Zarr fills a last chunk up to the size of the others
        chunks = -(-shape[0] // chunk)
        shard = chunk * max(1, min(SHARD_BYTES // (chunk * row_bytes), chunks // SHARDS))
        self.files.blocks[name] = chunk * row_bytes
        return self.group.create_array(
            name,
            shape=shape,
            dtype=self.dtypes[name],
            chunks=(chunk, *shape[1:]),
            shards=(shard, *shape[1:]),
            compressors=None,
            dimension_names=DIMENSIONS[name],
            # Without this an all-zero chunk is no file, which looks like a lost one.
            config={"write_empty_chunks": True},
        )

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
                self.buffers[name].append(rounded)
        self.written += rows.pop()
        with self._writing():
            for name, array in self.arrays.items():
                self._flush(name, array.shards[0])

    def _flush(self, name: str, rows: int) -> None:
        """Write buffered rows of an array in whole shards of `rows` images; writing part of a shard costs a re-read."""
        held = sum(len(values) for values in self.buffers[name])
        if held < rows:
            return
        values = np.concatenate(self.buffers[name])
        whole = held - held % rows
        start = self.positions[name]
        self.arrays[name][start : start + whole] = values[:whole]
        self.positions[name] = start + whole
        self.buffers[name] = [values[whole:]] if whole < held else []

    def close(self) -> None:
        """Write what is left and the digest. Raises StoreError if images are missing or too many."""
        if self.written != len(self.image_ids):
            raise StoreError(f"{self.path}: {self.written} images were embedded, {len(self.image_ids)} were expected.")
        with self._writing():
            for name in self.arrays:
                self._flush(name, max(1, sum(len(values) for values in self.buffers[name])))
            with warnings.catch_warnings(action="ignore"):  # Zarr v3 has it, its specification not yet
                zarr.consolidate_metadata(self.files)
            root = self.partial / "zarr.json"
            content, _ = read_json(root)
            files = {name: entry._asdict() for name, entry in self.files.files.items() if name != root.name}
            content["attributes"]["files"] = files
            write_json(root, content)
            _remove(self.path)
            os.replace(self.partial, self.path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Faults of the disk in words. What was written is removed: it takes room, and will be made anew."""
        try:
            yield
        except OSError as error:
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


def write_part(
    embedded: Iterable[dict[str, np.ndarray]],
    path: Path,
    image_ids: list[str],
    dtype: str,
    attributes: dict,
    store_post: bool = True,
    what: str = "images",
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
                writer = PartWriter(path, image_ids, *shapes, dtype, attributes, store_post)
            writer.append(**batch)
            progress.update(len(batch["pre"]))
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


def _remove(path: Path, ignore_errors: bool = False) -> None:
    """Remove a folder, or a link to one, which Snakemake's cache between workflows puts in a part's place."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path, ignore_errors)
