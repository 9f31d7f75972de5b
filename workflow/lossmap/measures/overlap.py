"""Overlap of two sets of neighbour lists, what chance makes of it, and the paper's own convention."""

import numpy as np

from lossmap.measures.checks import check_k, checked_matrix

TABLE_BYTES = 2**24  # a table of ranks that stays in the cache


def neighbour_overlap(before, after, k, metric="l2"):
    """Share of each item's k nearest neighbours that is kept.

    Parameters: before (n, d1) and after (n, d2), real; row i is the same item in both. k, 1 <= k < n; an item is never
        its own neighbour. metric: "l2", Euclidean distance, or "ip", inner product of unit-length vectors.
    Returns: (n,) float64 in [0, 1], no unit; 1 = same neighbours. Unrelated embeddings score k / (n - 1) on average.
        Ties go to the lower index.
    Raises: ValueError if the row counts differ, k is out of range, or a value is not finite (the message names the
        first such row).
    Source: Li et al. 2025, arXiv:2509.11986, eq. 6, without the item itself. For several k, search once for the largest
        and use list_overlap.
    """
    from lossmap.measures.neighbours import nearest_neighbours  # torch is for those who search

    before, after = checked_matrix(before, "before"), checked_matrix(after, "after")
    if len(before) != len(after):
        raise ValueError(f"before has {len(before)} rows and after {len(after)}; row i must be the same item in both")
    check_k(k, len(before))
    lists = [nearest_neighbours(x, k, metric, name=name) for x, name in ((before, "before"), (after, "after"))]
    return list_overlap(*lists, k)


def list_overlap(a, b, k):
    """Share of each item's first k neighbours in a that are also among its first k in b.

    Parameters: a, b (n, at least k) integers: neighbour lists, nearest first, without the item itself.
    Returns: (n,) float64 in [0, 1], multiples of 1/k.
    Raises: ValueError if the lists are not of the same n items, or are shorter than k.
    """
    a, b = _checked_lists(a, b, k)
    a, b = a[:, :k], b[:, :k]
    common = np.empty(len(a))
    for rows, table in _rank_tables(b):
        common[rows] = (np.take_along_axis(table, a[rows], axis=1) < k).sum(axis=1)
    return common / k


def overlap_including_self(a, b, k):
    """Overlap in the paper's convention: each item heads its own list, so k - 1 others remain and 1/k is the least.

    Parameters: a, b (n, at least k - 1) integers: neighbour lists without the item itself. k >= 1.
    Returns: (n,) float64 in [1/k, 1].
    Raises: ValueError as list_overlap.
    Source: the code released with Li et al. 2025, arXiv:2509.11986.
    """
    longest = np.shape(a)[-1] + 1
    if not 1 <= k <= longest:
        raise ValueError(f"k is {k}; wanted 1 to {longest}, the length of the neighbour lists with the item itself")
    if k == 1:
        a, _ = _checked_lists(a, b, 1)
        return np.ones(len(a))
    return (1 + (k - 1) * list_overlap(a, b, k - 1)) / k


def chance_overlap(n, k):
    """Mean overlap of unrelated embeddings of n items: k / (n - 1), in (0, 1]. ValueError if k is out of range."""
    check_k(k, n)
    return k / (n - 1)


def chance_corrected(overlap, n, k):
    """Overlap above chance, (R - c) / (1 - c) with c = k / (n - 1): 1 = same neighbours, 0 = chance, below 0 = worse.

    Parameters: overlap, number or array in [0, 1], for n items and k neighbours.
    Returns: float64 of the same shape; nan where k = n - 1, for then every list holds every item.
    Raises: ValueError if k is out of range.
    """
    chance = chance_overlap(n, k)
    overlap = np.asarray(overlap, dtype=np.float64)
    corrected = (overlap - chance) / (1 - chance) if chance < 1 else np.full(overlap.shape, np.nan)
    return corrected[()]


def permutation_null(a, b, k, permutations, rng):
    """Mean overlap when it is forgotten which item of b is which of a: what unrelated embeddings would score.

    Each permutation renames the items of b, as rows and as entries; the structure of both sets of lists stays.
    Parameters: a, b (n, at least k) integers: neighbour lists without the item itself. k: an int, or several, which
        then share the work. permutations: how many. rng: numpy Generator.
    Returns: (permutations,) float64, or (permutations, len(k)) for several k; k / (n - 1) on average.
    Raises: ValueError as list_overlap, or if permutations < 1.
    """
    ks = np.atleast_1d(k)
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}; wanted at least 1")
    for one in ks:
        a, b = _checked_lists(a, b, one)
    widest = int(ks.max())
    a, b = a[:, :widest].astype(np.int32), b[:, :widest]
    old_names = np.stack([rng.permutation(len(a)).astype(np.int32) for _ in range(permutations)])
    new_names = np.argsort(old_names, axis=1).astype(np.int32)
    # An item is shared at k when the later of its two ranks is below k: one pass serves every k.
    later = np.zeros((permutations, widest + 1), dtype=np.int64)
    for rows, table in _rank_tables(b):
        own_rank = np.arange(widest, dtype=table.dtype)
        start = np.arange(len(table), dtype=np.int64)[:, None] * table.shape[1]
        for p, (old, new) in enumerate(zip(old_names, new_names, strict=True)):
            ranks = table.ravel()[start + old[a[new[rows]]]]
            later[p] += np.bincount(np.maximum(ranks, own_rank).ravel(), minlength=widest + 1)
    shares = later.cumsum(axis=1)[:, ks - 1] / (len(a) * ks)
    return shares if np.ndim(k) else shares[:, 0]


def _rank_tables(lists):
    """Blocks of rows: their slice, and (rows, n) the place of each item in each row's list, or the list's length."""
    n, length = lists.shape
    dtype = np.min_scalar_type(length)
    size = max(1, TABLE_BYTES // (n * dtype.itemsize))
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        table = np.full((rows.stop - start, n), length, dtype=dtype)
        np.put_along_axis(table, lists[rows], np.arange(length, dtype=dtype)[None], axis=1)
        yield rows, table


def _checked_lists(a, b, k):
    a, b = np.asarray(a), np.asarray(b)
    for name, lists in (("a", a), ("b", b)):
        if lists.ndim != 2 or lists.dtype.kind not in "iu":
            raise ValueError(f"{name}: {lists.dtype} of shape {lists.shape}; wanted integer neighbour lists, (n, k)")
        if not 1 <= k <= lists.shape[1]:
            raise ValueError(f"k is {k}; wanted 1 to {lists.shape[1]}, the length of the neighbour lists {name}")
        outside = ((lists < 0) | (lists >= len(lists))).any(axis=1)
        own = (lists == np.arange(len(lists))[:, None]).any(axis=1)
        if own.any():
            raise ValueError(f"{name}: row {own.argmax()} names itself; wanted lists without the item itself")
        if outside.any():
            raise ValueError(f"{name}: row {outside.argmax()} names an item outside 0 to {len(lists) - 1}")
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} neighbour lists and b has {len(b)}; row i must be the same item in both")
    return a, b
