"""Retrieval of images of the same class by their embeddings."""

import numpy as np


def recall_at(neighbours, labels, r):
    """Whether any of a query's r nearest neighbours is of its class, one query per item (Recall@r).

    Parameters: neighbours (n, at least r) integers, nearest first; every item is a query, and its list leaves it out,
        so the gallery is everything else. labels (n,): the class of each item, numbers or strings.
    Returns: (n,) float64, 1 = found, 0 = not; its mean is Recall@r. An item whose class has no other item cannot be
        found and counts as 0, as in the usual protocol, where every test image is a query. (CUB-200-2011 has no such
        image.)
    Raises: ValueError if there is not one label for each list, a label is missing (None or nan), or the lists are
        shorter than r.
    Source: Recall@K of Jegou et al. 2011 as used on CUB-200-2011 since Song et al. 2016, arXiv:1511.06452.
    """
    neighbours, labels = np.asarray(neighbours), np.asarray(labels)
    if neighbours.ndim != 2 or neighbours.dtype.kind not in "iu":
        raise ValueError(f"neighbours: {neighbours.dtype} of shape {neighbours.shape}; wanted integer lists, (n, r)")
    if labels.shape != neighbours.shape[:1]:
        raise ValueError(f"labels: has shape {labels.shape}; wanted ({len(neighbours)},), one for each neighbour list")
    if not 1 <= r <= neighbours.shape[1]:
        raise ValueError(f"r is {r}; wanted 1 to {neighbours.shape[1]}, the length of the neighbour lists")
    outside = ((neighbours < 0) | (neighbours >= len(neighbours))).any(axis=1)
    if outside.any():
        raise ValueError(f"neighbours: row {outside.argmax()} names an item outside 0 to {len(neighbours) - 1}")
    missing = np.array([label is None or label != label for label in labels.tolist()], dtype=bool)
    if missing.any():
        raise ValueError(f"labels: {missing.sum()} of {len(labels)} are missing; the first is row {missing.argmax()}")
    _, classes = np.unique(labels, return_inverse=True)
    return (classes[neighbours[:, :r]] == classes[:, None]).any(axis=1).astype(np.float64)
