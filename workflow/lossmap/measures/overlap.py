"""Overlap of two sets of neighbour lists, what chance makes of it, and the paper's own convention."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from lossmap.measures.checks import check_k, checked_matrix
from lossmap.measures.influence import PerItem
from lossmap.measures.ranking import MOST_PARTS, Ranking, blocks, checked_lists
from lossmap.measures.result import Embeddings, Measured, sides

Lists = NDArray[np.integer]
TABLE_BYTES = 2**24  # a table of ranks that stays in the cache
LAST_PLACES = 1.5  # times sqrt(k): places of a list that tell how often its last is in the other list, too
MORE_PLACES = 2  # added to them, at the mean of all items; without, some intervals are a tenth too narrow (k = 1, 100)
ROUNDING = 1e-12  # of means that are equal but for the order of their sums


def neighbour_overlap(
    before: Embeddings,
    after: ArrayLike | None = None,
    k: int = 10,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    *,
    equal: Literal["drop", "count"] = "drop",
    permutations: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
    device: str = "cpu",
) -> Measured:
    """Share of each item's k nearest neighbours that is kept: the k-NN overlap ratio (KNOR).

    Parameters: before and after, see `sides`: a Dataset of embeddings, or (n, d1) and (n, d2), real; row i is the same
        item in both. k, 1 <= k < n; an item is never its own neighbour. metric: "euclidean", Euclidean distance, or
        "cosine", inner product of unit-length vectors. equal: "drop", of items whose embeddings before are equal only
        the first is compared, or "count", all are. permutations: of the null, 0 for none. seed: of the null. device:
        where neighbours are searched.
    Returns: Measured, in [0, 1], no unit; 1 = same neighbours; chance k / (n - 1); per_item: of each. Where neighbours
        are equally near, the expected value over random orders of them.
    Raises: ValueError if the row counts differ, k is out of range, or a value is not finite (the message names the
        first such row).
    Source: Li et al. 2025, arXiv:2509.11986, eq. 6, without the item itself. For several k, search once for the largest
        and use ranking_overlaps.
    """
    from lossmap.measures.equality import compared_items  # torch is for those who search
    from lossmap.measures.neighbours import rank_neighbours

    both = [checked_matrix(x, name) for x, name in zip(sides(before, after), ("before", "after"), strict=True)]
    if len(both[0]) != len(both[1]):
        raise ValueError(
            f"before has {len(both[0])} rows and after {len(both[1])}; row i must be the same item in both"
        )
    check_k(k, len(both[0]))
    compared = compared_items(both[0], equal)
    one, other = (
        rank_neighbours(x[compared.rows], k, metric, device=device, name=name)
        for x, name in zip(both, ("before", "after"), strict=True)
    )
    (measured,) = ranking_overlaps(one, other, [k], permutations, confidence, np.random.default_rng(seed))
    return replace(measured, items=compared.items)


def ranking_overlaps(
    a: Ranking, b: Ranking, ks: Sequence[int], permutations: int, confidence: float, rng: np.random.Generator
) -> list[Measured]:
    """Overlap of two rankings for several k, each with interval, chance and permutation null.

    Parameters: a, b: Ranking of the same n items. ks: each at most what they were made for. permutations: of the null,
        0 for none. confidence: of the interval, see `PerItem.interval`. rng: numpy Generator, of the null.
    Returns: list of Measured. p: (1 + permutations that score no less) / (1 + permutations).
    Raises: ValueError as list_overlap.
    """
    nulls = permutation_null(a, b, ks, permutations, rng).T if permutations else [None] * len(ks)
    found = []
    for k, null in zip(ks, nulls, strict=True):
        measured = ranking_overlap(a, b, k)
        mean, low, high = measured.interval(confidence, bounds=(0, 1))
        p = None if null is None else float((1 + (null >= mean - ROUNDING).sum()) / (1 + len(null)))
        n = len(measured.values)
        found.append(Measured(mean, low, high, chance_overlap(n, k), n, p, null, measured.values))
    return found


def ranking_overlap(a: Ranking, b: Ranking, k: int, parts: bool = False) -> PerItem:
    """Share of each item's k nearest in one Ranking that are also among its k nearest in another.

    Ties: an item that is among the k nearest with probability p in one and q in the other, each set of equally near
    items in random order, is shared with probability p q; the overlap is the sum of these over k. So where everything
    ties, the overlap is chance.

    Parameters: a, b: Ranking of the same n items. k: at most what they were made for. parts: whether those of the
        result are wanted.
    Returns: PerItem, values in [0, 1]. As a neighbour, item i adds to item j's overlap 1 / k if it is in both lists,
        less what it takes by pushing the last item out of each list where it is: how often that one is in the other
        list, too. What is last in both lists is pushed out of both but lost once.
    Raises: ValueError as list_overlap.
    """
    _check_rankings(a, b, k)
    pushed_a, pushed_b, both_last = _last_places(a, b, k)
    values, influence, kept = np.empty(len(a.items)), np.zeros(len(a.items)), []
    entries = np.maximum(a.entries(k), b.entries(k))
    for rows in blocks(entries):
        one, two = a.shares(k, rows), b.shares(k, rows)
        both = one.multiply(two)
        values[rows] = both.sum(axis=1) / k
        influence += (both.sum(axis=0) * (1 + both_last) - one.T @ pushed_a[rows] - two.T @ pushed_b[rows]) / k
        if parts and 2 * entries.sum() <= MOST_PARTS:
            lost = sparse.diags_array(pushed_a[rows]) @ one + sparse.diags_array(pushed_b[rows]) @ two
            kept.append((both * (1 + both_last) - lost) / k)
    influence += values
    return PerItem(values, influence - influence.mean(), sparse.vstack(kept, format="csr") if kept else None)


def _last_places(a: Ranking, b: Ranking, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """How often what has the last place of an item's list is in its other list.

    Of one item that is a single draw. So its share is that of the last 1.5 sqrt(k) places, with two more at the mean
    over all items, times what the last place has of it in this mean.

    Returns: (n,) for lists in a, (n,) for those in b; and how often the last of both lists is the same item.
    """
    width = min(k, round(LAST_PLACES * k**0.5))
    hits, at_last, both_last = np.zeros((2, len(a.items))), np.zeros(2), 0.0
    for rows in blocks(np.maximum(a.entries(k), b.entries(k))):
        ends = [side.shares(k, rows, after=k - 1) for side in (a, b)]
        both_last += ends[0].multiply(ends[1]).sum() / len(a.items)
        for i, (side, other) in enumerate(((a, b.shares(k, rows)), (b, a.shares(k, rows)))):
            hits[i, rows] = side.shares(k, rows, after=k - width).multiply(other).sum(axis=1)
            at_last[i] += ends[i].multiply(other).sum() / len(a.items)
    mean = hits.mean(axis=1, keepdims=True) / width
    level = at_last / np.maximum(mean[:, 0], np.finfo(float).tiny)
    pushed = (hits + MORE_PLACES * mean) / (width + MORE_PLACES) * level[:, None]
    return pushed[0], pushed[1], both_last


def list_overlap(a: ArrayLike, b: ArrayLike, k: int) -> NDArray[np.float64]:
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


def overlap_including_self(a: ArrayLike, b: ArrayLike, k: int) -> NDArray[np.float64]:
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


def chance_overlap(n: int, k: int) -> float:
    """Mean overlap of unrelated embeddings of n items: k / (n - 1), in (0, 1]. ValueError if k is out of range."""
    check_k(k, n)
    return k / (n - 1)


def chance_corrected(overlap: ArrayLike, n: int, k: int) -> Any:
    """Overlap above chance, (R - c) / (1 - c) with c = k / (n - 1): 1 = same neighbours, 0 = chance, below 0 = worse.

    Parameters: overlap, number or array in [0, 1], for n items and k neighbours.
    Returns: float64 of the same shape; nan where k = n - 1, for then every list holds every item.
    Raises: ValueError if k is out of range.
    """
    chance = chance_overlap(n, k)
    overlap = np.asarray(overlap, dtype=np.float64)
    corrected = (overlap - chance) / (1 - chance) if chance < 1 else np.full(overlap.shape, np.nan)
    return corrected[()]


def permutation_null(
    a: Ranking, b: Ranking, k: int | Sequence[int], permutations: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Mean overlap when it is forgotten which item of b is which of a: what unrelated embeddings would score.

    Each permutation renames the items of b, as rows and as entries; the structure of both rankings stays, and ties
    count as in ranking_overlap.
    Parameters: a, b: Ranking of the same n items. k: an int, or several, which then share the work. permutations: how
        many. rng: numpy Generator.
    Returns: (permutations,) float64, or (permutations, len(k)) for several k; k / (n - 1) on average.
    Raises: ValueError as list_overlap, or if permutations < 1.
    """
    ks = np.atleast_1d(k)
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}; wanted at least 1")
    for one in ks:
        _check_rankings(a, b, one)
    n = len(a.items)
    old_names = np.stack([rng.permutation(n).astype(np.int32) for _ in range(permutations)])
    new_names = np.argsort(old_names, axis=1).astype(np.int32)
    if a.without_ties and b.without_ties:
        shares = _null_of_lists(a.items, b.items, ks, old_names, new_names)
    else:
        shares = np.stack([_null_of_shares(a, b, one, old_names, new_names) for one in ks], axis=1)
    return shares if np.ndim(k) else shares[:, 0]


def _null_of_lists(a: Lists, b: Lists, ks: Lists, old_names: Lists, new_names: Lists) -> NDArray[np.float64]:
    """An item is shared at k when the later of its two ranks is below k: one pass serves every k."""
    widest = int(ks.max())
    a, b = a[:, :widest].astype(np.int32), b[:, :widest]
    later = np.zeros((len(old_names), widest + 1), dtype=np.int64)
    for rows, table in _rank_tables(b):
        own_rank = np.arange(widest, dtype=table.dtype)
        start = np.arange(len(table), dtype=np.int64)[:, None] * table.shape[1]
        for p, (old, new) in enumerate(zip(old_names, new_names, strict=True)):
            ranks = table.ravel()[start + old[a[new[rows]]]]
            later[p] += np.bincount(np.maximum(ranks, own_rank).ravel(), minlength=widest + 1)
    return later.cumsum(axis=1)[:, ks - 1] / (len(a) * ks)


def _null_of_shares(a: Ranking, b: Ranking, k: int, old_names: Lists, new_names: Lists) -> NDArray[np.float64]:
    """The same for rankings with ties: the side with the longer lists as a table, the other as entries in it."""
    n = len(a.items)
    if a.entries(k).sum() > b.entries(k).sum():
        a, b, old_names, new_names = b, a, new_names, old_names
    entries = a.shares(k)
    total = np.zeros(len(old_names))
    size = max(1, TABLE_BYTES // (8 * n))
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        table = b.shares(k, rows).toarray()
        for p, (old, new) in enumerate(zip(old_names, new_names, strict=True)):
            mine = entries[new[rows]].tocoo()
            total[p] += mine.data @ table[mine.row, old[mine.col]]
    return total / (n * k)


def _rank_tables(lists: Lists) -> Iterator[tuple[slice, Lists]]:
    """Blocks of rows: their slice, and (rows, n) the place of each item in each row's list, or the list's length."""
    n, length = lists.shape
    dtype = np.min_scalar_type(length)
    size = max(1, TABLE_BYTES // (n * dtype.itemsize))
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        table = np.full((rows.stop - start, n), length, dtype=dtype)
        np.put_along_axis(table, lists[rows], np.arange(length, dtype=dtype)[None], axis=1)
        yield rows, table


def _check_rankings(a: Ranking, b: Ranking, k: int) -> None:
    if len(a.items) != len(b.items):
        raise ValueError(f"a ranks {len(a.items)} items and b {len(b.items)}; row i must be the same item in both")
    for side in (a, b):
        side.check(k)


def _checked_lists(a: ArrayLike, b: ArrayLike, k: int) -> tuple[Lists, Lists]:
    one, other = checked_lists(a, "a"), checked_lists(b, "b")
    for name, lists in (("a", one), ("b", other)):
        if not 1 <= k <= lists.shape[1]:
            raise ValueError(f"k is {k}; wanted 1 to {lists.shape[1]}, the length of the neighbour lists {name}")
    if len(one) != len(other):
        raise ValueError(
            f"a has {len(one)} neighbour lists and b has {len(other)}; row i must be the same item in both"
        )
    return one, other
