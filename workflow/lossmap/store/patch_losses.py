"""Patch losses on disk: the only reader and writer.

One Zarr v3 group for a dataset and a model, `patch_loss/<dataset>/<model>.zarr`, that plain `xarray.open_zarr` opens.
Its `zarr.json` lists the size and SHA-256 of each of its files, and a digest of itself, so that a lost, shortened or
changed file is an error and never a silent zero.
"""

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec

from lossmap.errors import LossmapError

FORMAT = "lossmap-patch-losses/1"
CHUNK_BYTES = 4 << 20  # of one reconstructor: who wants one map reads little, and the number of files stays low
LOSSES = ("squared_error", "norm_difference", "cosine_error")


class PatchLossError(LossmapError):
    """A store of patch losses that can't be trusted."""


class PatchLossWriter:
    """Writes the patch losses of all images, batch by batch, holding at most one chunk of each array in memory.

    The store grows under a temporary name and is moved to its place when it is whole.
    Parameters: path, the store's folder, replaced if it is there; reconstructors, their names; image_ids, in order;
    pre_grid (rows, columns) of the patches; attributes, JSON values.
    """

    def __init__(self, path: Path, reconstructors: list[str], image_ids: list[str], pre_grid, attributes: dict):
        self.path, self.reconstructors, self.image_ids = Path(path), list(reconstructors), list(image_ids)
        self.grid, self.written = tuple(pre_grid), 0
        self.partial = self.path.with_name(f".{self.path.name}.partial")
        shutil.rmtree(self.partial, ignore_errors=True)
        about = {**attributes, "pre_grid": list(self.grid), "format": FORMAT, "coordinates": "image_id"}
        self.group = zarr.create_group(self.partial, zarr_format=3, attributes=about)
        n = len(self.image_ids)
        self.rows = min(n, max(1, CHUNK_BYTES // (4 * int(np.prod(self.grid)))))
        place, each = ("image", "row", "col"), ("reconstructor", "image", "row", "col")
        self.arrays = {name: self._create(name, (len(reconstructors), n, *self.grid), each) for name in LOSSES}
        self.arrays["pre_norm"] = self._create("pre_norm", (n, *self.grid), place)
        self.held = {name: [] for name in self.arrays}
        for name, values in (("reconstructor", self.reconstructors), ("image_id", self.image_ids)):
            self._create_names(name, values, "reconstructor" if name == "reconstructor" else "image")

    def _create(self, name: str, shape: tuple, dimensions: tuple) -> zarr.Array:
        return self.group.create_array(
            name,
            shape=shape,
            dtype="float32",
            chunks=(*[1] * (len(shape) - 3), self.rows, *self.grid),
            compressors=Crc32cCodec(),
            dimension_names=dimensions,
            # Without this an all-zero chunk is no file, which looks like a lost one.
            config={"write_empty_chunks": True},
        )

    def _create_names(self, name: str, values: list[str], dimension: str) -> None:
        array = self.group.create_array(
            name, shape=(len(values),), dtype=str, chunks=(len(values),), compressors=Crc32cCodec(),
            dimension_names=(dimension,),
        )  # fmt: skip
        array[:] = np.array(values, dtype=object)

    def append(self, **batch: np.ndarray) -> None:
        """Add the next images. batch: each loss (reconstructor, images, patches) and pre_norm (images, patches).

        Raises: PatchLossError where a loss is not finite, naming the reconstructor and the image.
        """
        rows = {name: values.shape[-2] for name, values in batch.items()}
        if set(rows) != set(self.arrays) or len(set(rows.values())) != 1:
            raise ValueError(f"append wants {sorted(self.arrays)} of the same images, got {rows}")
        for name, values in batch.items():
            bad = np.argwhere(~np.isfinite(values))
            if len(bad):
                who = f" of reconstructor {self.reconstructors[bad[0][0]]}" if name in LOSSES else ""
                image = self.image_ids[self.written + bad[0][-2]]
                raise PatchLossError(
                    f"{self.path}: {name}{who} of image {image} is not finite (NaN or infinity): the reconstructor or "
                    "the embedding is damaged. Delete the reconstructor's file and run again."
                )
            self.held[name].append(values.astype(np.float32).reshape(*values.shape[:-1], *self.grid))
        self.written += rows["pre_norm"]
        self._flush(self.rows)

    def _flush(self, rows: int) -> None:
        """Write held images in whole chunks of `rows`."""
        held = sum(len(values) for values in self.held["pre_norm"])
        whole = held - held % rows
        if not whole:
            return
        start = self.written - held
        for name, array in self.arrays.items():
            values = np.concatenate(self.held[name], axis=-3)
            array[..., start : start + whole, :, :] = values[..., :whole, :, :]
            self.held[name] = [values[..., whole:, :, :]]

    def close(self) -> None:
        """Write what is left and the digests, and move the store to its place. Raises PatchLossError if images lack."""
        if self.written != len(self.image_ids):
            raise PatchLossError(
                f"{self.path}: {self.written} images were measured, {len(self.image_ids)} were expected."
            )
        self._flush(max(1, sum(len(values) for values in self.held["pre_norm"])))
        with warnings.catch_warnings(action="ignore"):  # Zarr v3 has it, its specification not yet
            zarr.consolidate_metadata(self.partial)
        root = self.partial / "zarr.json"
        content = json.loads(root.read_text())
        content["attributes"]["files"] = {
            file.relative_to(self.partial).as_posix(): {"size": file.stat().st_size, "sha256": _sha256(file)}
            for file in sorted(self.partial.rglob("*"))
            if file.is_file() and file != root
        }
        content["attributes"]["digest"] = _digest(content)
        root.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        if self.path.exists():
            shutil.rmtree(self.path)
        os.replace(self.partial, self.path)


def losses_in_memory(batches: list[dict[str, np.ndarray]], embeddings: xr.Dataset, attributes: dict) -> xr.Dataset:
    """The patch losses of one reconstructor as a Dataset.

    Parameters: batches, as for `PatchLossWriter.append`, of one reconstructor; embeddings, of the same images, whose
        patch_box is kept where there is one.
    Returns: a Dataset with squared_error, norm_difference, cosine_error and pre_norm (image, row, col), float32.
    """
    grid = tuple(embeddings.attrs["pre_grid"])
    variables = {}
    for name in (*LOSSES, "pre_norm"):
        values = np.concatenate([batch[name][0] if name in LOSSES else batch[name] for batch in batches])
        variables[name] = ("image", "row", "col"), values.astype(np.float32).reshape(-1, *grid)
    if "patch_box" in embeddings:
        boxes = embeddings["patch_box"].values.reshape(-1, *grid, 4)
        variables["patch_box"] = ("image", "row", "col", "edge"), boxes
    coordinates = {"image_id": ("image", embeddings["image_id"].values)}
    return xr.Dataset(variables, coordinates, {"pre_grid": list(grid), **attributes})


def open_patch_losses(path: str | Path) -> xr.Dataset:
    """Open the patch losses of a dataset and a model, lazily.

    Returns: a Dataset with squared_error, norm_difference and cosine_error (reconstructor, image, row, col) and
    pre_norm (image, row, col), float32; coordinates reconstructor and image_id. Attributes: best, the reconstructor
    with the lowest held-out error; pre_grid; provenance. Patches lie where they lie in the model's input image.

    Raises: PatchLossError if a file is missing, or is not the one that was written (the message names it).
    """
    path = Path(path)
    try:
        content = json.loads((path / "zarr.json").read_text())
        attributes = content["attributes"]
        files, digest, found = attributes["files"], attributes.pop("digest"), attributes["format"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise PatchLossError(
            f"{path}: this is no finished store of patch losses ({fault!r}). {_remedy(path)}"
        ) from fault
    if found != FORMAT:
        raise PatchLossError(f"{path}: its format is {found!r}; wanted {FORMAT!r}. {_remedy(path)}")
    if _digest(content) != digest:
        raise PatchLossError(f"{path}: zarr.json was changed after it was written. {_remedy(path)}")
    for name, file in files.items():
        if not (path / name).is_file():
            raise PatchLossError(f"{path / name}: this file is missing. {_remedy(path)}")
        if (path / name).stat().st_size != file["size"] or _sha256(path / name) != file["sha256"]:
            raise PatchLossError(f"{path / name}: was changed after it was written. {_remedy(path)}")
    dataset = xr.open_zarr(path, chunks=None, consolidated=True)
    for name in ("files", "digest", "format"):
        del dataset.attrs[name]
    return dataset


def _remedy(path: Path) -> str:
    return f"Delete {path} and run again: what is missing is made anew, and nothing else."


def _digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
