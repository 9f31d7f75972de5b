"""Patch losses on disk: the only reader and writer.

One Zarr v3 group for a dataset and a model, `patch_loss/<dataset>/<model>.zarr`, that plain `xarray.open_zarr` opens.
Its `zarr.json` lists the digests of each of its files, as a part of an embedding store does, and a digest of itself, so
that a lost, shortened or changed file is an error and never a silent zero.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xarray as xr

from lossmap.store.format import ROOT, StoreError, description_digest, read_json, remedy
from lossmap.store.group import Group
from lossmap.store.group_writer import GroupWriter, Growing

FORMAT = "lossmap-patch-losses/2"
CHUNK_BYTES = 4 << 20  # of one reconstructor: who wants one map reads little, and the number of files stays low
LOSSES = ("squared_error", "norm_difference", "cosine_error")
DIMENSIONS = ("image", "row", "col")


class PatchLossWriter:
    """Writes the patch losses of all images, batch by batch, holding at most one chunk of each array in memory.

    Parameters: path, the store's folder, replaced if it is there; reconstructors, their names; image_ids, in order;
    pre_grid (rows, columns) of the patches; attributes, JSON values.
    Raises: StoreError, here and in its methods, if the disk is full or the folder may not be written.
    """

    def __init__(
        self, path: Path, reconstructors: list[str], image_ids: list[str], pre_grid: Iterable[int], attributes: dict
    ):
        self.reconstructors, self.image_ids = list(reconstructors), list(image_ids)
        self.grid, self.written = tuple(pre_grid), 0
        self.group = GroupWriter(path, {**attributes, "pre_grid": list(self.grid), "format": FORMAT})
        self.path = self.group.path
        place = (len(self.image_ids), *self.grid)
        chunk = (min(place[0], max(1, CHUNK_BYTES // (4 * int(np.prod(self.grid))))), *self.grid)
        each = (len(self.reconstructors), *place), "float32", ("reconstructor", *DIMENSIONS), (1, *chunk)
        self.arrays = {name: Growing(self.group.create(name, *each), axis=1) for name in LOSSES}
        self.arrays["pre_norm"] = Growing(self.group.create("pre_norm", place, "float32", DIMENSIONS, chunk))
        self.group.create_names("reconstructor", self.reconstructors, "reconstructor")
        self.group.create_names("image_id", self.image_ids, "image")

    def append(self, **batch: np.ndarray) -> None:
        """Add the next images. batch: each loss (reconstructor, images, patches) and pre_norm (images, patches).

        Raises: StoreError where a loss is not finite, naming the reconstructor and the image.
        """
        rows = {name: values.shape[-2] for name, values in batch.items()}
        if set(rows) != set(self.arrays) or len(set(rows.values())) != 1:
            raise ValueError(f"append wants {sorted(self.arrays)} of the same images, got {rows}")
        for name, values in batch.items():
            bad = np.argwhere(~np.isfinite(values))
            if len(bad):
                who = f" of reconstructor {self.reconstructors[bad[0][0]]}" if name in LOSSES else ""
                image = self.image_ids[self.written + bad[0][-2]]
                raise StoreError(
                    f"{self.path}: {name}{who} of image {image} is not finite (NaN or infinity): the reconstructor or "
                    "the embedding is damaged.",
                    "Delete the reconstructor's file and run again.",
                )
            self.arrays[name].hold(values.astype(np.float32).reshape(*values.shape[:-1], *self.grid))
        self.written += rows["pre_norm"]
        with self.group.writing():
            for array in self.arrays.values():
                array.flush()

    def close(self) -> None:
        """Write what is left and the digests, and move the store to its place. Raises StoreError if images lack."""
        if self.written != len(self.image_ids):
            raise StoreError(f"{self.path}: {self.written} images were measured, {len(self.image_ids)} were expected.")
        with self.group.writing():
            for array in self.arrays.values():
                array.flush(everything=True)
        self.group.finish(sealed=True)


def losses_in_memory(batches: list[dict[str, np.ndarray]], embeddings: xr.Dataset, attributes: dict) -> xr.Dataset:
    """The patch losses of one reconstructor as a Dataset.

    Parameters: batches, as for `PatchLossWriter.append`, of one reconstructor; embeddings, of the same images, whose
        patch_box is kept where there is one.
    Returns: a Dataset with squared_error, norm_difference, cosine_error and pre_norm (image, row, col), float32.
    """
    grid = tuple(embeddings.attrs["pre_grid"])
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name in (*LOSSES, "pre_norm"):
        values = np.concatenate([batch[name][0] if name in LOSSES else batch[name] for batch in batches])
        variables[name] = ("image", "row", "col"), values.astype(np.float32).reshape(-1, *grid)
    if "patch_box" in embeddings:
        boxes = embeddings["patch_box"].values.reshape(-1, *grid, 4)
        variables["patch_box"] = ("image", "row", "col", "edge"), boxes
    coordinates = {"image_id": ("image", embeddings["image_id"].values)}
    return xr.Dataset(variables, coordinates, {"pre_grid": list(grid), **attributes})


def open_patch_losses(path: str | Path) -> xr.Dataset:
    """Open the patch losses of a dataset and a model, lazily, after every file was compared with its digests.

    Returns: a Dataset with squared_error, norm_difference and cosine_error (reconstructor, image, row, col) and
    pre_norm (image, row, col), float32; coordinates reconstructor and image_id. Attributes: best, the reconstructor
    with the lowest held-out error; pre_grid; what else was given to the writer. Patches lie where they lie in the
    model's input image.

    Raises: StoreError if a file is missing, or is not the one that was written (the message names it and its images),
    here and where values are read later.
    """
    path = Path(path)
    try:
        content, data = read_json(path / ROOT)
        found, digest = content["attributes"]["format"], content["attributes"]["digest"]
    except (StoreError, KeyError, TypeError) as fault:
        raise StoreError(f"{path}: this is no finished store of patch losses ({fault}).", remedy(path)) from fault
    if found != FORMAT and str(found).startswith(FORMAT.split("/")[0] + "/"):
        raise StoreError(
            f"{path}: these patch losses are of format {found}; this version of Lossmap reads {FORMAT}.",
            "Measure them again: add --forcerun measure_patch_loss to the snakemake command.",
        )
    if found != FORMAT:
        raise StoreError(f"{path}: its format is {found!r}; wanted {FORMAT!r}.", remedy(path))
    if description_digest(content) != digest:
        raise StoreError(f"{path}: {ROOT} was changed after it was written.", remedy(path))
    group = Group(path, content, data, remedy(path), "the store")
    for name in group.files:
        if problem := group.problem(name):
            raise StoreError(problem, group.remedy)
    dataset = xr.open_zarr(group.checked, chunks=None, consolidated=True, zarr_format=3)
    for name in ("files", "digest", "format"):
        del dataset.attrs[name]
    return dataset
