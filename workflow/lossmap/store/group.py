"""Reading a Zarr group that `GroupWriter` has written, through the digests of its files."""

from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import cast

import numpy as np
import zarr
from zarr.core.metadata import ArrayV3Metadata

from lossmap.store.files import CheckedFiles, Digests, changed_blocks, digests
from lossmap.store.format import ROOT, StoreError

NAMES = {"image_id": "the image ids", "reconstructor": "the names of the reconstructors"}


class Group:
    """A group of which every byte that is read is what was written. Its metadata comes from `zarr.json` alone: whatever
    else lies in the folder is not looked at.

    Parameters: path, the group's folder; content and data, of its zarr.json, with the digests of the other files (which
    are taken out of content); remedy, what to do where it is damaged; called, what it is.
    """

    def __init__(self, path: Path, content: dict, data: bytes, remedy: str, called: str):
        self.path, self.remedy, self.called = path, remedy, called
        self.files = {name: Digests(**entry) for name, entry in content["attributes"].pop("files").items()}
        self.checked = CheckedFiles(path, {**self.files, ROOT: digests(data)}, self.fault)
        self.arrays = dict(zarr.open_group(self.checked, mode="r", zarr_format=3, use_consolidated=True).arrays())

    @cached_property
    def image_ids(self) -> np.ndarray:
        return np.array(np.asarray(self.arrays["image_id"][:]).tolist(), dtype=str)

    def check_complete(self) -> None:
        """Raise StoreError at the first file that is missing or of another size, or a changed description."""
        for name in self.files:
            if misfit := self.misfit(name):
                raise StoreError(misfit, self.remedy)
            if name.endswith(ROOT):
                self.checked.read(name)

    def problem(self, name: str) -> str | None:
        """What is wrong with one file, after reading all of it."""
        if misfit := self.misfit(name):
            return misfit
        try:
            blocks = changed_blocks(self.path / name, self.files[name])
        except OSError as error:
            return f"{self.path / name}: can't be read ({error.strerror}); it holds {self.held(name)}."
        runs = [[block for _, block in run] for _, run in groupby(enumerate(blocks), lambda pair: pair[1] - pair[0])]
        held = " and ".join(self.held(name, range(run[0], run[-1] + 1)) for run in runs)
        return self.changed(name, held) if blocks else None

    def misfit(self, name: str) -> str | None:
        """What is wrong with a file, as far as its place and size tell."""
        path, size = self.path / name, self.files[name].size
        if not path.is_file():
            return f"{path}: this file of the store is missing; it holds {self.held(name)}."
        if (found := path.stat().st_size) != size:
            return f"{path}: {found} bytes, {size} were written; it holds {self.held(name)}."
        return None

    def fault(self, name: str, block: int | None) -> StoreError:
        """The error for a file of which a block is not what was written, or (None) that can't be read."""
        if block is None:
            return StoreError(f"{self.path / name}: can't be read; it holds {self.held(name)}.", self.remedy)
        return StoreError(self.changed(name, self.held(name, range(block, block + 1))), self.remedy)

    def changed(self, name: str, held: str) -> str:
        return f"{self.path / name}: {held} can't be trusted: the file was changed after it was written."

    def held(self, name: str, blocks: range | None = None) -> str:
        """What a file, or some of its blocks, hold, in words."""
        array, *place = name.split("/")
        if name.endswith(ROOT):
            return f"the description of {array if place else self.called}"
        if array in NAMES:
            return NAMES[array]
        stored = self.arrays[array]
        names = cast("tuple[str, ...]", cast(ArrayV3Metadata, stored.metadata).dimension_names)
        axis = next(i for i, each in enumerate(names) if each != "reconstructor")  # that of images, or of their rows
        n, chunk, file = (sizes[axis] for sizes in (stored.shape, stored.chunks, stored.shards or stored.chunks))
        first = int(place[1 + axis]) * file
        stop = min(first + file, n)
        # Beyond the chunks lies the list of where they are, which all of them need.
        if blocks is not None and first + blocks[-1] * chunk < stop:
            first, stop = first + blocks[0] * chunk, min(first + (blocks[-1] + 1) * chunk, stop)
        try:
            first, last = self._images(names[axis], first, stop)
        except StoreError:
            return f"rows {first} to {stop - 1} of {array}"
        try:
            ids = self.image_ids[[first, last]].tolist()
        except StoreError:
            ids = [f"number {first}", f"number {last}"]
        return f"image {ids[0]}" if first == last else f"images {ids[0]} to {ids[1]}"

    def _images(self, axis: str, first: int, stop: int) -> tuple[int, int]:
        """The first and the last image that rows `first` to `stop` (exclusive) along an axis belong to."""
        if axis == "image":
            return first, stop - 1
        if axis == "bound":  # each is where one image ends and the next begins
            return max(0, first - 1), min(stop, self.arrays["patch_offset"].shape[0] - 1) - 1
        offsets = np.asarray(self.arrays[f"{axis}_offset"][:])
        first, last = (np.searchsorted(offsets, [first, stop - 1], side="right") - 1).tolist()
        return first, last
