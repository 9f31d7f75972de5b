"""Reading one part of an embedding store."""

from pathlib import Path

import numpy as np

from lossmap.store.format import (
    DIMENSIONS,
    FORMAT,
    PROVENANCE,
    RAGGED_FORMAT,
    ROOT,
    StoreError,
    read_json,
    remedy,
    sha256,
    with_key,
)
from lossmap.store.group import Group
from lossmap.store.images import RAGGED_DIMENSIONS


class Part(Group):
    """One part, read through its digests.

    Parameters: path, the part's folder; digest, of its zarr.json as its index has it (None: not indexed yet); index,
    the store's; start, the number of its first image in the store.
    Raises: StoreError if the part is missing, was never finished, or isn't the one that was indexed.
    """

    def __init__(self, path: Path, index: Path, digest: str | None = None, start: int = 0):
        self.start = start
        # Snakemake makes a part anew only where the index, too, has to be made.
        mended = remedy(path, index)
        if digest is not None and not path.is_dir():
            raise StoreError(f"{path}: this part of the store is missing.", remedy(index))
        content, data = read_json(path / ROOT)
        self.digest = sha256(data)
        if digest is not None and self.digest != digest:
            raise StoreError(f"{path}: this is not the part that was indexed (its digest differs).", mended)
        attributes = content.get("attributes", {})
        if "files" not in attributes:
            raise StoreError(f"{path}: this part was never finished.", mended)
        self.format = attributes.get("format")
        if self.format not in (FORMAT, RAGGED_FORMAT):
            raise StoreError(f"{path}: its format is {self.format}, wanted {RAGGED_FORMAT} or {FORMAT}.", mended)
        super().__init__(path, content, data, mended, "the part")
        self.made_with = attributes.get("provenance", {})  # in parts of earlier versions of Lossmap
        attributes = {key: value for key, value in attributes.items() if key not in ("coordinates", "format")}
        attributes = with_key(attributes)
        arrays = {
            name: {"shape": list(self.arrays[name].shape[1:]), "dtype": str(self.arrays[name].dtype)}
            for name in self.dimensions
            if name in self.arrays
        }
        arrays.setdefault("post", {key: attributes["post"][key] for key in ("shape", "dtype")})
        # What all parts of a store share: shapes of one image, or of one row, and nowhere how many there are.
        self.description = {"arrays": arrays, **attributes}

    def provenance(self) -> dict:
        """Which code and software made the part: for readers only, so that no digest covers it. Empty where unknown.

        Raises: StoreError if the file that says so can't be read.
        """
        path = self.path / PROVENANCE
        return read_json(path)[0] if path.exists() else self.made_with

    @property
    def ragged(self) -> bool:
        """Whether its images differ in layout."""
        return self.format == RAGGED_FORMAT

    @property
    def dimensions(self) -> dict[str, tuple[str, ...]]:
        """Of each of its arrays, post among them where it is not stored."""
        return RAGGED_DIMENSIONS if self.ragged else DIMENSIONS

    @property
    def stop(self) -> int:
        return self.start + len(self.image_ids)

    def length(self, name: str) -> int:
        """Rows of one array."""
        return len(self.image_ids) if self.dimensions[name][0] == "image" else self.arrays[name].shape[0]

    def read(self, name: str, rows: slice | np.ndarray) -> np.ndarray:
        """Rows of one array. Raises StoreError if what is read is not what was written; it names file and images."""
        array = self.arrays[name]
        return np.asarray(array.oindex[rows] if isinstance(rows, np.ndarray) else array[rows])
