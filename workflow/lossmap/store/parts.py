"""Reading one part of an embedding store."""

from functools import cached_property
from pathlib import Path

import numpy as np
import zarr

from lossmap.store.files import CheckedFiles, Digests, digests
from lossmap.store.format import DIMENSIONS, FORMAT, PROVENANCE, StoreError, read_json, remedy, sha256, with_key

ROOT = "zarr.json"


class Part:
    """One part, read through its digests. Its metadata comes from `zarr.json` alone: whatever else lies in the folder
    is not looked at.

    Parameters: path, the part's folder; digest, of its zarr.json as its index has it (None: not indexed yet); index,
    the store's; start, the number of its first image in the store.
    Raises: StoreError if the part is missing, was never finished, or isn't the one that was indexed.
    """

    def __init__(self, path: Path, index: Path, digest: str | None = None, start: int = 0):
        self.path, self.start = path, start
        # Snakemake makes a part anew only where the index, too, has to be made.
        self.remedy = remedy(path, index)
        if digest is not None and not path.is_dir():
            raise StoreError(f"{path}: this part of the store is missing.", remedy(index))
        content, data = read_json(path / ROOT)
        self.digest = sha256(data)
        if digest is not None and self.digest != digest:
            raise StoreError(f"{path}: this is not the part that was indexed (its digest differs).", self.remedy)
        attributes = content.get("attributes", {})
        if "files" not in attributes:
            raise StoreError(f"{path}: this part was never finished.", self.remedy)
        if attributes.get("format") != FORMAT:
            raise StoreError(f"{path}: its format is {attributes.get('format')}, wanted {FORMAT}.", self.remedy)
        self.files = {name: Digests(**entry) for name, entry in attributes.pop("files").items()}
        self.checked = CheckedFiles(path, {**self.files, ROOT: digests(data)}, self.fault)
        self.arrays = dict(zarr.open_group(self.checked, mode="r", zarr_format=3, use_consolidated=True).arrays())
        self.made_with = attributes.get("provenance", {})  # in parts of earlier versions of Lossmap
        attributes = {key: value for key, value in attributes.items() if key not in ("coordinates", "format")}
        attributes = with_key(attributes)
        arrays = {
            name: {"shape": list(self.arrays[name].shape[1:]), "dtype": str(self.arrays[name].dtype)}
            for name in DIMENSIONS
            if name in self.arrays
        }
        arrays.setdefault("post", {key: attributes["post"][key] for key in ("shape", "dtype")})
        self.description = {"arrays": arrays, **attributes}  # what all parts of a store share

    @cached_property
    def image_ids(self) -> np.ndarray:
        return np.array(self.arrays["image_id"][:].tolist(), dtype=str)

    def provenance(self) -> dict:
        """Which code and software made the part: for readers only, so that no digest covers it. Empty where unknown.

        Raises: StoreError if the file that says so can't be read.
        """
        path = self.path / PROVENANCE
        return read_json(path)[0] if path.exists() else self.made_with

    @property
    def stop(self) -> int:
        return self.start + len(self.image_ids)

    def read(self, name: str, rows: slice | np.ndarray) -> np.ndarray:
        """Rows of one array. Raises StoreError if what is read is not what was written; it names file and images."""
        array = self.arrays[name]
        return array.oindex[rows] if isinstance(rows, np.ndarray) else array[rows]

    def check_complete(self) -> None:
        """Raise StoreError at the first file that is missing or of another size, or a changed description."""
        for name in self.files:
            if misfit := self.misfit(name):
                raise StoreError(misfit, self.remedy)
            if name.endswith(ROOT):
                self.checked.read(name)

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
            return f"the description of {array if place else 'the part'}"
        if array == "image_id":
            return "the image ids"
        stored = self.arrays[array]
        n, chunk, shard = stored.shape[0], stored.chunks[0], stored.shards[0]
        first = int(place[1]) * shard
        stop = min(first + shard, n)
        # Beyond the chunks lies the list of where they are, which all of them need.
        if blocks is not None and first + blocks[-1] * chunk < stop:
            first, stop = first + blocks[0] * chunk, min(first + (blocks[-1] + 1) * chunk, stop)
        try:
            names = self.image_ids[[first, stop - 1]].tolist()
        except StoreError:
            names = [f"number {first}", f"number {stop - 1}"]
        return f"image {names[0]}" if first == stop - 1 else f"images {names[0]} to {names[1]}"
