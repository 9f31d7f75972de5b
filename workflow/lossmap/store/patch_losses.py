"""Patch losses on disk: the only reader and writer.

One Zarr v3 group for a dataset and a model, `patch_loss/<dataset>/<model>.zarr`, that plain `xarray.open_zarr` opens.
Its `zarr.json` lists the digests of each of its files, as a part of an embedding store does, and a digest of itself, so
that a lost, shortened or changed file is an error and never a silent zero.

Where all images have the same layout, losses lie on axes (image, row, col), and each is finite. Where images differ in
layout, they lie on one axis (patch), the images one after another, beside the arrays that say so (`images.py`). There,
NaN stands for rows of pre that nothing is reconstructed of (`targets`), and for nothing else. `ImageLosses` reads both.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from lossmap.store.format import ROOT, StoreError, description_digest, read_json, remedy
from lossmap.store.group import Group
from lossmap.store.group_writer import GroupWriter, Growing
from lossmap.store.images import LAYOUT_DIMENSIONS, Alike, Images, is_ragged, layout_arrays
from lossmap.store.layouts import Layout, Shape, one_view
from lossmap.store.maps import Finest, ViewMap, finest, view_maps

FORMAT = "lossmap-patch-losses/2"  # all images of one layout
RAGGED_FORMAT = "lossmap-patch-losses/3"  # images that differ in layout
CHUNK_BYTES = 4 << 20  # of one reconstructor: who wants one map reads little, and the number of files stays low
LOSSES = ("squared_error", "norm_difference", "cosine_error")
MEASURED = (*LOSSES, "pre_norm")
DIMENSIONS = ("image", "row", "col")
LAYOUTS = LAYOUT_DIMENSIONS | {"size": ("image", "side")}  # what a ragged store says of layouts


@lru_cache(maxsize=4096)
def targets(shape: Shape) -> np.ndarray:
    """(patches,) bool: the rows of pre that are reconstructed, of images that differ in layout (`Shape.targets`)."""
    found = np.zeros(shape.patches, dtype=bool)
    found[shape.targets] = True
    found.flags.writeable = False  # one for all
    return found


class PatchLossWriter:
    """Writes the patch losses of all images, batch by batch, holding at most one chunk of each array in memory.

    Parameters: path, the store's folder, replaced if it is there; reconstructors, their names; image_ids, in order;
    pre_grid (rows, columns) of the patches, None where images differ in layout; attributes, JSON values; patches, where
    images differ in layout, how many all of them have.
    Raises: StoreError, here and in its methods, if the disk is full or the folder may not be written.
    """

    def __init__(
        self,
        path: Path,
        reconstructors: list[str],
        image_ids: list[str],
        pre_grid: Iterable[int] | None,
        attributes: dict,
        patches: int | None = None,
    ):
        self.reconstructors, self.image_ids = list(reconstructors), list(image_ids)
        self.grid, self.written = None if pre_grid is None else tuple(pre_grid), 0
        self.layouts: list[Layout] = []
        form = RAGGED_FORMAT if self.grid is None else FORMAT
        about = {"pre_grid": self.grid and list(self.grid), "format": form}
        self.group = GroupWriter(path, {**attributes, **about})
        self.path = self.group.path
        place: tuple[int, ...]
        chunk: tuple[int, ...]
        axes: tuple[str, ...]
        if self.grid is None:
            if patches is None:
                raise ValueError("images that differ in layout: patches, the number of all of them, is wanted")
            place, chunk, axes = (patches,), (min(max(1, patches), CHUNK_BYTES // 4),), ("patch",)
        else:
            place, axes = (len(self.image_ids), *self.grid), DIMENSIONS
            chunk = (min(place[0], max(1, CHUNK_BYTES // (4 * int(np.prod(self.grid))))), *self.grid)
        self.place = place
        each = (len(self.reconstructors), *place), "float32", ("reconstructor", *axes), (1, *chunk)
        self.arrays = {name: Growing(self.group.create(name, *each), axis=1) for name in LOSSES}
        self.arrays["pre_norm"] = Growing(self.group.create("pre_norm", place, "float32", axes, chunk))
        self.group.create_names("reconstructor", self.reconstructors, "reconstructor")
        self.group.create_names("image_id", self.image_ids, "image")

    def append(self, **batch: Any) -> None:
        """Add the next images. batch: each loss (reconstructor, images, patches) and pre_norm (images, patches). Where
        images differ in layout: layouts, a list of `Layout`, and the patches of all of them, one after another: each
        loss (reconstructor, patches) and pre_norm (patches), NaN for those that are no `targets`.

        Raises: StoreError where a loss is not finite, naming the reconstructor and the image, or is given of a patch
        that is no target.
        """
        layouts = batch.pop("layouts", None)
        axis = -1 if self.grid is None else -2
        rows = {name: values.shape[axis] for name, values in batch.items()}
        same = set(rows) == set(self.arrays) and len(set(rows.values())) == 1
        if not same or (layouts is None) == (self.grid is None):
            more = " and layouts" if self.grid is None else ""
            raise ValueError(f"append wants {sorted(self.arrays)} of the same images{more}, got {rows}")
        if layouts is None:
            wanted = image_of = None
        else:
            counts = [layout.shape.patches for layout in layouts]
            if sum(counts) != rows["pre_norm"]:
                raise ValueError(f"append: the layouts have {sum(counts)} patches, the losses {rows['pre_norm']}")
            wanted = np.concatenate([targets(layout.shape) for layout in layouts])
            image_of = np.repeat(np.arange(len(layouts)), counts)
        for name, values in batch.items():
            self._check(name, values, wanted, image_of)
            kept = values.astype(np.float32)
            self.arrays[name].hold(kept if self.grid is None else kept.reshape(*values.shape[:-1], *self.grid))
        self.written += rows["pre_norm"] if layouts is None else len(layouts)
        self.layouts += layouts or []
        with self.group.writing():
            for array in self.arrays.values():
                array.flush()

    def _check(self, name: str, values: np.ndarray, wanted: np.ndarray | None, image_of: np.ndarray | None) -> None:
        """wanted: which patches are targets; image_of: the image that each belongs to; None where all are alike."""
        finite = np.isfinite(values)
        bad = np.argwhere(~finite if wanted is None else (~finite & wanted) | (~np.isnan(values) & ~wanted))
        if not len(bad):
            return
        who = f" of reconstructor {self.reconstructors[bad[0][0]]}" if name in LOSSES else ""
        image = self.image_ids[self.written + (bad[0][-2] if image_of is None else image_of[bad[0][-1]])]
        if wanted is not None and not wanted[bad[0][-1]]:
            raise StoreError(f"{self.path}: {name}{who} of image {image} is given of a patch that no token stands for.")
        raise StoreError(
            f"{self.path}: {name}{who} of image {image} is not finite (NaN or infinity): the reconstructor or "
            "the embedding is damaged.",
            "Delete the reconstructor's file and run again.",
        )

    def close(self) -> None:
        """Write what is left and the digests, and move the store to its place. Raises StoreError if images lack."""
        if self.written != len(self.image_ids):
            raise StoreError(f"{self.path}: {self.written} images were measured, {len(self.image_ids)} were expected.")
        if self.grid is None and (found := sum(layout.shape.patches for layout in self.layouts)) != self.place[0]:
            raise StoreError(f"{self.path}: {found} patches were measured, {self.place[0]} were expected.")
        with self.group.writing():
            for array in self.arrays.values():
                array.flush(everything=True)
            if self.grid is None:
                for name, values in layout_arrays(self.layouts).items():
                    given = np.ascontiguousarray(values)
                    chunk = (max(1, len(given)), *given.shape[1:])
                    self.group.create(name, given.shape, given.dtype, LAYOUTS[name], chunk)[:] = given
        self.group.finish(sealed=True)


def losses_in_memory(batches: list[dict[str, Any]], embeddings: xr.Dataset, attributes: dict) -> xr.Dataset:
    """The patch losses of one reconstructor as a Dataset.

    Parameters: batches, as for `PatchLossWriter.append`, of one reconstructor; embeddings, of the same images, whose
        patch_box is kept where there is one. Where they differ in layout, layouts are theirs, and batches need none.
    Returns: a Dataset with squared_error, norm_difference, cosine_error and pre_norm (image, row, col), float32. Where
        images differ in layout, (patch), with the arrays that say where each lies: see `ImageLosses`.
    """
    ragged = is_ragged(embeddings)
    grid = None if ragged else tuple(embeddings.attrs["pre_grid"])
    variables: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name in MEASURED:
        values = np.concatenate([batch[name][0] if name in LOSSES else batch[name] for batch in batches])
        values = values.astype(np.float32)
        variables[name] = (("patch",), values) if grid is None else (DIMENSIONS, values.reshape(-1, *grid))
    if grid is None:
        known = [name for name in (*LAYOUTS, "patch_box") if name in embeddings]
        variables |= {name: (tuple(map(str, embeddings[name].dims)), embeddings[name].values) for name in known}
    elif "patch_box" in embeddings:
        boxes = embeddings["patch_box"].values.reshape(-1, *grid, 4)
        variables["patch_box"] = (*DIMENSIONS, "edge"), boxes
    coordinates = {"image_id": ("image", embeddings["image_id"].values)}
    return xr.Dataset(variables, coordinates, {"pre_grid": grid and list(grid), **attributes})


class ImageLosses:
    """Patch losses image by image, whether or not all images have the same layout.

    Parameters: losses, of `open_patch_losses` or `losses_in_memory`, of one reconstructor (`losses.sel(reconstructor=
        ...)`); embeddings, of the same images: where all images have the same layout, they alone say where each patch
        lies, and without them there are no layouts, maps and finest.

    losses, ragged, image_ids.  embedded_ids: those of the embeddings.  shapes: those that occur.  kinds (n,): each
    image's, a number of them.
    """

    def __init__(self, losses: xr.Dataset, embeddings: xr.Dataset | None = None):
        self.losses, self.ragged = losses, is_ragged(losses)
        self.image_ids: np.ndarray = losses["image_id"].values
        self._where = embeddings if embeddings is None else Images(embeddings)
        self.embedded_ids: np.ndarray = (losses if embeddings is None else embeddings)["image_id"].values
        if self.ragged:
            self._where = where = Images(losses)
            self.shapes, self.kinds, self._offsets = where.shapes, where.kinds, where.offsets["patch_offset"]
            return
        self.shapes, self.kinds = [one_view(losses.attrs["pre_grid"], None)], np.zeros(len(self), np.int64)
        if embeddings is not None:
            self._row_of = {image: row for row, image in enumerate(self.embedded_ids.tolist())}

    def __len__(self) -> int:
        return len(self.image_ids)

    def alike(self, images: Sequence[int] | np.ndarray) -> list[Alike]:
        """Images by shape, as `Images.alike`: positions, which of those that were asked for."""
        kinds = self.kinds[np.asarray(images, dtype=np.int64)]
        first = sorted(np.unique(kinds, return_index=True)[1])
        return [Alike(np.flatnonzero(kinds == kinds[i]), self.shapes[kinds[i]]) for i in first]

    def targets(self, shape: Shape) -> np.ndarray:
        """(patches,) bool: the rows of pre of images of a shape that have a loss."""
        return targets(shape) if self.ragged else np.ones(shape.patches, dtype=bool)

    def read(self, name: str, images: Sequence[int] | np.ndarray) -> np.ndarray:
        """A loss, or pre_norm, of images of one shape: (images, patches), NaN for patches that are no targets."""
        images = np.asarray(images, dtype=np.int64)
        if not self.ragged:
            return self.losses[name][images].values.reshape(len(images), -1)
        offsets = self._offsets
        first, stop = offsets[images.min()], offsets[images.max() + 1]
        rows = offsets[images + 1] - offsets[images]
        if (rows != rows[0]).any():
            raise ValueError("images of several shapes are asked for; wanted one: see alike")
        values = self.losses[name][first:stop].values
        return values[(offsets[images] - first)[:, None] + np.arange(rows[0])]

    def of_targets(self, name: str, images: Sequence[int] | np.ndarray) -> np.ndarray:
        """The same of the targets alone: (images, targets), all finite."""
        values = self.read(name, images)
        wanted = self.targets(self.shapes[self.kinds[images[0]]])
        return values if wanted.all() else values.compress(wanted, axis=1)

    def means(self, name: str) -> np.ndarray:
        """(n,) float64: mean over the patches of each image that are reconstructed, those of all its views."""
        if not self.ragged:
            return self.losses[name].mean(("row", "col"), dtype="float64").values
        found = np.empty(len(self))
        for positions, _ in self.alike(np.arange(len(self))):
            found[positions] = self.of_targets(name, positions).mean(axis=1, dtype=float)
        return found

    def values(self, name: str, image: int) -> np.ndarray:
        """A loss, or pre_norm, of one image: (patches,), NaN for patches that are no targets."""
        return self.read(name, [image])[0]

    def layout(self, image: int) -> Layout:
        """Raises: ValueError if nothing says where patches lie."""
        if self._where is None:
            raise ValueError("patch losses of images that are all alike don't say where they lie: give embeddings")
        return self._where.layout(image if self.ragged else self._row_of[self.image_ids[image]])

    def maps(self, name: str, image: int) -> list[ViewMap]:
        """A loss, or pre_norm, of one image: each view's box, kind and values (rows, cols)."""
        return view_maps(self.layout(image), self.values(name, image))

    def finest(self, image: int) -> Finest:
        """The default map of one image: which patch is shown where (see `maps.finest`)."""
        layout = self.layout(image)
        return finest(layout, self.targets(layout.shape))


def open_patch_losses(path: str | Path) -> xr.Dataset:
    """Open the patch losses of a dataset and a model, lazily, after every file was compared with its digests.

    Returns: a Dataset with squared_error, norm_difference and cosine_error (reconstructor, image, row, col) and
    pre_norm (image, row, col), float32; coordinates reconstructor and image_id. Attributes: best, the reconstructor
    with the lowest held-out error; pre_grid; what else was given to the writer. Patches lie where they lie in the
    model's input image. Where images differ in layout: (reconstructor, patch) and (patch), with the arrays that say
    where each lies, and pre_grid None. `ImageLosses` reads both.

    Raises: StoreError if a file is missing, or is not the one that was written (the message names it and its images),
    here and where values are read later.
    """
    path = Path(path)
    try:
        content, data = read_json(path / ROOT)
        found, digest = content["attributes"]["format"], content["attributes"]["digest"]
    except (StoreError, KeyError, TypeError) as fault:
        raise StoreError(f"{path}: this is no finished store of patch losses ({fault}).", remedy(path)) from fault
    known = found in (FORMAT, RAGGED_FORMAT)
    if not known and str(found).startswith(FORMAT.split("/")[0] + "/"):
        raise StoreError(
            f"{path}: these patch losses are of format {found}; this version of Lossmap reads {FORMAT} and "
            f"{RAGGED_FORMAT}.",
            "Measure them again: add --forcerun measure_patch_loss to the snakemake command.",
        )
    if not known:
        raise StoreError(f"{path}: its format is {found!r}; wanted {FORMAT!r}.", remedy(path))
    if description_digest(content) != digest:
        raise StoreError(f"{path}: {ROOT} was changed after it was written.", remedy(path))
    group = _Group(path, content, data, remedy(path), "the store")
    for name in group.files:
        if problem := group.problem(name):
            raise StoreError(problem, group.remedy)
    dataset = xr.open_zarr(group.checked, chunks=None, consolidated=True, zarr_format=3)
    for name in ("files", "digest", "format"):
        del dataset.attrs[name]
    return dataset


class _Group(Group):
    """A group that knows what offsets are."""

    def held(self, name: str, blocks: range | None = None) -> str:
        if name.split("/")[0].endswith("_offset") and not name.endswith(ROOT):
            return "where the rows of each image begin"
        return super().held(name, blocks)
