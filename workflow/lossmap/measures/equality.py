"""Images that are equal: a copy tells nothing new, and would be its original's nearest neighbour on any side."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csgraph

from lossmap.measures.neighbours import first_equal_rows


def first_of_equals(embeddings: ArrayLike, pixels: ArrayLike | None = None) -> NDArray[np.int64]:
    """The first image of each group of equal images: equal pixels, or equal embeddings, bit for bit.

    Parameters: embeddings (n, d), before the connector. pixels (n,): a digest of each image's decoded pixels, or None:
        not known. Two images are in one group also if a chain of equal ones leads from one to the other.
    Returns: (n,) int64: the lowest index of the image's group; its own where no earlier image equals it.
    Raises: ValueError if there is not one digest for each embedding.
    """
    embeddings = np.ascontiguousarray(embeddings)
    n = len(embeddings)
    same = [first_equal_rows(embeddings)]
    if pixels is not None:
        pixels = np.asarray(pixels)
        if pixels.shape != (n,):
            raise ValueError(f"pixels: has shape {pixels.shape}; wanted ({n},), one digest for each embedding")
        _, first, group = np.unique(pixels, return_index=True, return_inverse=True)
        same.append(first[group])
    where = np.tile(np.arange(n), len(same)), np.concatenate(same)
    _, group = csgraph.connected_components(coo_array((np.ones(len(where[0])), where), shape=(n, n)), directed=False)
    return np.unique(group, return_index=True)[1][group]


class Compared(NamedTuple):
    """Which of n items are compared. items (m,): their numbers. rows (m,): where the embedding of each stands: its own,
    or that of the item that it equals, so that rounding sets no copies apart. first (n,): see `first_of_equals`."""

    items: NDArray[np.int64]
    rows: NDArray[np.int64]
    first: NDArray[np.int64]


def compared_items(
    embeddings: ArrayLike, equal: Literal["drop", "count"] = "drop", pixels: ArrayLike | None = None
) -> Compared:
    """Which items are compared where some are equal.

    Parameters: embeddings and pixels, see `first_of_equals`. equal: "drop", of equal items only the first is compared,
        or "count", all are.
    Raises: ValueError if equal is neither; as `first_of_equals`.
    """
    if equal not in ("drop", "count"):
        raise ValueError(f"equal is {equal!r}; wanted drop or count")
    first = first_of_equals(embeddings, pixels)
    items = np.arange(len(first))
    items = items[first == items] if equal == "drop" else items
    return Compared(items, first[items], first)
