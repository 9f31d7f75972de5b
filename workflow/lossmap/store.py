"""Embedding stores: the only reader and writer.

A store is one small index, `embeddings/<dataset>/<model>.json`, and the parts that it lists,
`embeddings/<dataset>/<model>/part-<first>-<stop>.zarr`, each a Zarr v3 group that plain `xarray.open_zarr` opens.
Every chunk carries a crc32c. A part's `zarr.json` lists the size and SHA-256 of each of its files, and the index holds
the SHA-256 of every part's `zarr.json`, so that a lost, shortened, changed or exchanged file is an error and never a
silent zero (Zarr itself reads a missing chunk as zeros). A file's SHA-256 is compared when it is first read.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.codecs import Crc32cCodec

from lossmap.errors import LossmapError

FORMAT = "lossmap-embeddings/1"
# Chunks are small, to read few images; shards are large, to keep the number of files low on a cluster's file system.
CHUNK_BYTES = 1 << 20
SHARD_BYTES = 128 << 20
DIMENSIONS = {
    "pre": ("image", "patch", "feature"),
    "post": ("image", "token", "feature_out"),
    "pre_mean": ("image", "feature"),
    "post_mean": ("image", "feature_out"),
    "box": ("image", "edge"),
    "size": ("image", "side"),
}


class StoreError(LossmapError):
    """An embedding store that can't be trusted."""


class PartWriter:
    """Writes one part, batch by batch, holding at most one shard of each array in memory.

    It grows under a temporary name beside its place and is moved there when it is whole, so that a run that was killed
    leaves nothing that looks finished.

    Parameters: path, the part's folder, replaced if it is there; image_ids, its images in order; pre_shape (patches,
    features) and post_shape (tokens, features_out); dtype, "float16" or "float32", of pre and post; attributes, JSON
    values that describe how the embeddings were made.
    """

    def __init__(self, path: Path, image_ids: list[str], pre_shape, post_shape, dtype: str, attributes: dict):
        self.path, self.image_ids, self.written = Path(path), list(image_ids), 0
        self.partial = self.path.with_name(f".{self.path.name}.partial")
        shutil.rmtree(self.partial, ignore_errors=True)
        n = len(self.image_ids)
        self.group = zarr.create_group(
            self.partial, zarr_format=3, attributes={"coordinates": "image_id", "format": FORMAT, **attributes}
        )
        shapes = {
            "pre": (n, *pre_shape),
            "post": (n, *post_shape),
            "pre_mean": (n, pre_shape[1]),
            "post_mean": (n, post_shape[1]),
            "box": (n, 4),
            "size": (n, 2),
        }
        dtypes = {"pre": dtype, "post": dtype, "size": "int32"}
        self.arrays = {name: self._create(name, shapes[name], dtypes.get(name, "float32")) for name in DIMENSIONS}
        self.buffers = {name: [] for name in DIMENSIONS}
        self.positions = dict.fromkeys(DIMENSIONS, 0)
        ids = self.group.create_array(
            "image_id", shape=(n,), dtype=str, chunks=(n,), compressors=Crc32cCodec(), dimension_names=("image",)
        )
        ids[:] = np.array(self.image_ids, dtype=object)

    def _create(self, name: str, shape: tuple, dtype: str) -> zarr.Array:
        row_bytes = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
        chunk = min(max(1, CHUNK_BYTES // row_bytes), shape[0])
        shard = chunk * max(1, min(SHARD_BYTES // (chunk * row_bytes), -(-shape[0] // chunk)))
        return self.group.create_array(
            name,
            shape=shape,
            dtype=dtype,
            chunks=(chunk, *shape[1:]),
            shards=(shard, *shape[1:]),
            compressors=Crc32cCodec(),
            dimension_names=DIMENSIONS[name],
            # Without this an all-zero chunk is no file, which looks like a lost one.
            config={"write_empty_chunks": True},
        )

    def append(self, **batch: np.ndarray) -> None:
        """Add the next images. batch: one array per name of `DIMENSIONS`, the same number of rows in each.

        Means are taken before pre and post are rounded to the stored dtype. Raises StoreError where a value is not
        finite, as computed or after rounding, and names the image.
        """
        rows = {len(values) for values in batch.values()}
        if set(batch) != set(DIMENSIONS) or len(rows) != 1:
            raise ValueError(f"append wants {sorted(DIMENSIONS)} with equal rows, got {sorted(batch)} with {rows}")
        for name, values in batch.items():
            rounded = values.astype(self.arrays[name].dtype, copy=False)
            self._check_finite(name, rounded, batch.get(f"{name}_mean"))
            self.buffers[name].append(rounded)
        self.written += rows.pop()
        for name, array in self.arrays.items():
            self._flush(name, array.shards[0])

    def _check_finite(self, name: str, values: np.ndarray, means: np.ndarray | None) -> None:
        finite = np.isfinite(values)
        if finite.all():
            return
        row = int(np.argmin(finite.reshape(len(values), -1).all(axis=1)))
        image = self.image_ids[self.written + row]
        # Means are taken before rounding: where they are finite, only the stored dtype is too narrow.
        if means is not None and np.isfinite(means[row]).all():
            raise StoreError(
                f"{self.path}: {name} of image {image} holds a value beyond the range of {values.dtype}. "
                "Set extraction: dtype: float32 in the configuration."
            )
        raise StoreError(
            f"{self.path}: {name} of image {image} is not finite (NaN or infinity): the model overflowed, "
            "or its weights are damaged. Against overflow, set extraction: compute_dtype: bfloat16 or float32."
        )

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
        for name in self.arrays:
            self._flush(name, max(1, sum(len(values) for values in self.buffers[name])))
        with warnings.catch_warnings(action="ignore"):  # Zarr v3 has it, its specification not yet
            zarr.consolidate_metadata(self.partial)
        root = self.partial / "zarr.json"
        files = {
            file.relative_to(self.partial).as_posix(): {"size": file.stat().st_size, "sha256": _sha256(file)}
            for file in sorted(self.partial.rglob("*"))
            if file.is_file() and file != root
        }
        content = _read_json(root)
        content["attributes"]["files"] = files
        _write_json(root, content)
        if self.path.exists():
            shutil.rmtree(self.path)
        os.replace(self.partial, self.path)


def write_index(parts: list[Path], index: Path) -> None:
    """Gather a store's parts, in order, into its index.

    Raises StoreError if a part was never finished, an image occurs twice, or parts were made in different ways (model,
    preprocessing, code, versions).
    """
    entries, ids, reference, position = [], [], None, 0
    for path in parts:
        group = _open_group(path)
        own_ids = group["image_id"][:].tolist()
        description = _describe(group)
        if reference is None:
            reference, reference_path = description, path
        elif description != reference:
            changed = [key for key in reference if reference[key] != description.get(key)]
            raise StoreError(
                f"{path} and {reference_path} were not made in the same way: {', '.join(changed)} differ. "
                "Delete the older of the two and run again."
            )
        entries.append({"path": path.relative_to(index.parent).as_posix(), "digest": _sha256(path / "zarr.json")})
        position += len(own_ids)
        ids += own_ids
    if reference is None:
        raise StoreError(f"{index}: a store needs at least one part.")
    if len(set(ids)) != len(ids):
        raise StoreError(f"{index}: image {next(i for i in ids if ids.count(i) > 1)} is in two parts. Extract again.")
    _write_json(
        index,
        {
            "format": FORMAT,
            "images": position,
            "image_ids_sha256": _ids_digest(ids),
            **reference,
            "parts": entries,
        },
    )


def open_store(index: str | Path) -> xr.Dataset:
    """Open an embedding store lazily: nothing is read before values are asked for.

    Returns: a Dataset with pre (image, patch, feature) and post (image, token, feature_out) in the stored precision,
    pre_mean (image, feature) and post_mean (image, feature_out) in float32, box (image, edge): left, top, right, bottom
    of the model's input in pixels of the original image, size (image, side): width and height of the original, after
    EXIF orientation; coordinate image_id. Attributes: pre_grid and post_grid (rows, columns; null where tokens have no
    place), model, provenance. Patches are in raster order.

    Raises: StoreError if the index is damaged, or a part is missing, incomplete or not the one that was indexed; while
    reading, if a file is not the one that was written (the message names the file and its images).
    """
    index = Path(index)
    content = _read_json(index)
    try:
        if content["format"] != FORMAT:
            raise StoreError(f"{index}: this is not an index of embeddings ({FORMAT}). Give <dataset>/<model>.json.")
        parts, first = [], 0
        for entry in content["parts"]:
            parts.append(_Part(index.parent / entry["path"], entry["digest"], first, index))
            first = parts[-1].stop
        ids = np.concatenate([part.image_ids for part in parts])
        attributes = {key: value for key, value in content.items() if key not in ("parts", "format")}
        shared = {"images": first, "image_ids_sha256": _ids_digest(ids.tolist()), **_describe(parts[0].group)}
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise StoreError(f"{index}: this is no whole index of embeddings ({fault!r}). {_remedy(index)}") from fault
    if attributes != shared:
        changed = ", ".join(sorted(key for key in {*attributes, *shared} if attributes.get(key) != shared.get(key)))
        raise StoreError(f"{index}: {changed} differ from what the parts say: it was edited. {_remedy(index)}")
    variables = {
        name: (dimensions, indexing.LazilyIndexedArray(_Rows(parts, name))) for name, dimensions in DIMENSIONS.items()
    }
    del attributes["arrays"]
    return xr.Dataset(variables, coords={"image_id": ("image", ids)}, attrs=attributes)


def iterate(dataset: xr.Dataset, name: str, rows: int = 1024) -> Iterator[np.ndarray]:
    """Values of one array in blocks of at most `rows` images, in order."""
    for start in range(0, dataset.sizes["image"], rows):
        yield dataset[name][start : start + rows].values


class _Part:
    """One part of an opened store, checked for completeness against the index."""

    def __init__(self, path: Path, digest: str, first: int, index: Path):
        self.path, self.start, self.verified = path, first, set()
        # Snakemake makes a part anew only where the index, too, has to be made.
        self.remedy = _remedy(path, index)
        if not path.is_dir():
            raise StoreError(f"{path}: this part of the store is missing. {_remedy(index)}")
        self.group = _open_group(path)
        if _sha256(path / "zarr.json") != digest:
            raise StoreError(f"{path}: this is not the part that was indexed (its digest differs). {self.remedy}")
        self.files = self.group.attrs["files"]
        for name, file in self.files.items():
            if not (path / name).is_file():
                raise StoreError(f"{path / name}: this file of the store is missing. {self.remedy}")
            if (size := (path / name).stat().st_size) != file["size"]:
                raise StoreError(f"{path / name}: {size} bytes, {file['size']} were written. {self.remedy}")
            if name.endswith("zarr.json"):
                self._verify(name, "it describes an array")
        self.image_ids = np.array(self.read("image_id", slice(None)).tolist(), dtype=str)
        self.stop = first + len(self.image_ids)

    def read(self, name: str, rows: slice | np.ndarray) -> np.ndarray:
        """Rows of one array, in order, from files that are what was written."""
        array = self.group[name]
        step = (array.shards or array.chunks)[0]
        touched = np.arange(array.shape[0])[rows] // step
        for i in np.unique(touched).tolist():
            last = min((i + 1) * step, array.shape[0]) - 1
            whose = (
                "the image ids"
                if name == "image_id"
                else f"images {self.image_ids[i * step]} to {self.image_ids[last]}"
            )
            self._verify(f"{name}/c/{'/'.join(map(str, [i, *[0] * (array.ndim - 1)]))}", whose)
        return array.oindex[rows] if isinstance(rows, np.ndarray) else array[rows]

    def _verify(self, name: str, whose: str) -> None:
        """Compare a file with its digest, once."""
        if name in self.verified:
            return
        if _sha256(self.path / name) != self.files[name]["sha256"]:
            raise StoreError(
                f"{self.path / name}: {whose} can't be trusted: the file was changed after it was written. "
                f"{self.remedy}"
            )
        self.verified.add(name)


class _Rows(BackendArray):
    """One array over all parts, for xarray: rows are looked up in their parts, other axes are cut afterwards."""

    def __init__(self, parts: list[_Part], name: str):
        self.parts, self.name = parts, name
        first = parts[0].group[name]
        self.shape = (parts[-1].stop, *first.shape[1:])
        self.dtype = first.dtype

    def __getitem__(self, key):
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple) -> np.ndarray:
        rows, rest = key[0], key[1:]
        if isinstance(rows, slice):
            rows = np.arange(self.shape[0])[rows]
        values = self._rows(np.atleast_1d(np.asarray(rows, dtype=np.int64)))
        if np.ndim(rows) == 0:
            values = values[0]
        # One axis at a time, the last first: NumPy would pair several integer arrays, xarray means their cross product.
        for axis, selection in reversed(list(enumerate(rest, start=np.ndim(rows)))):
            values = values[(slice(None),) * axis + (selection,)]
        return values

    def _rows(self, rows: np.ndarray) -> np.ndarray:
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


def _remedy(*paths: Path) -> str:
    return f"Delete {' and '.join(map(str, paths))} and run again: what is missing is made anew, and nothing else."


def _open_group(path: Path) -> zarr.Group:
    """A finished part. Its metadata comes from `zarr.json` alone: whatever else lies in the folder is not looked at."""
    content = _read_json(path / "zarr.json")
    if "files" not in content.get("attributes", {}):
        raise StoreError(f"{path}: this part was never finished. {_remedy(path)}")
    return zarr.open_group(path, mode="r", use_consolidated=True)


def _describe(group: zarr.Group) -> dict:
    """What all parts of one store share."""
    attributes = {
        key: value for key, value in group.attrs.asdict().items() if key not in ("coordinates", "format", "files")
    }
    arrays = {name: {"shape": list(group[name].shape[1:]), "dtype": str(group[name].dtype)} for name in DIMENSIONS}
    return {"arrays": arrays, **attributes}


def _ids_digest(image_ids: list[str]) -> str:
    return hashlib.sha256(json.dumps(image_ids).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except (ValueError, OSError) as fault:
        raise StoreError(f"{path}: can't be read ({fault}). {_remedy(path)}") from fault
    if not isinstance(content, dict):
        raise StoreError(f"{path}: holds no JSON object. {_remedy(path)}")
    return content
