"""Nearest neighbours in order of distance, with what is equally near: who is among the k nearest, in expectation."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

ENTRIES = 2**24  # of neighbour lists that are held at once
MOST_PARTS = 2**26  # of what each neighbour adds to each item; more only where nearly everything ties


class Ranking(NamedTuple):
    """The nearest others of n items, nearest first; items whose embeddings are equal (twins) stand as one.

    items (n, w) integers: of each group of twins the first; -1 behind a row's end. An item's own twins, which are its
        nearest, are not in its row.
    within (n, w) integers: how many other items are no farther than this one: its place, or the last place of a tie.
    twin (n,) integers: the first item with the same embedding; without twins, the item itself.
    """

    items: np.ndarray
    within: np.ndarray
    twin: np.ndarray

    @property
    def without_ties(self):
        """Whether every item differs from all others and no two are equally near."""
        places = np.arange(1, self.items.shape[1] + 1)
        return self._distinct and bool((self.within == places).all() and (self.items >= 0).all())

    @property
    def twins(self):
        """(n,): how many others have an item's embedding."""
        return np.bincount(self.twin, minlength=len(self.twin))[self.twin] - 1

    def shares(self, k, rows=slice(None), after=0):
        """The probability that each item is among an item's k nearest, ties in random order.

        Parameters: k, at most what the ranking was made for. rows: a slice of the items. after, below k: of the k
            nearest leave out so many that are nearest.
        Returns: sparse (rows, n); each row sums to k - after.
        """
        of = np.arange(len(self.items))[rows]
        if self.without_ties:
            columns = self.items[rows, after:k]
            places = columns.flatten(), np.arange(len(of) + 1) * columns.shape[1]
            shares = sparse.csr_array((np.ones(columns.size), *places), shape=(len(of), len(self.twin)))
            shares.sort_indices()
            return shares
        items, within, own = self.items[rows], self.within[rows].astype(np.int64), self.twins[rows]
        nearer = np.empty_like(within)  # how many are nearer than those that tie here
        nearer[:, :1] = own[:, None]
        nearer[:, 1:] = np.where(within[:, 1:] == within[:, :-1], own[:, None], within[:, :-1])
        np.maximum.accumulate(nearer, axis=1, out=nearer)
        row, place = np.nonzero((nearer < k) & (within > after) & (items >= 0))
        first, last = nearer[row, place], within[row, place]
        has = np.flatnonzero(own > after)
        values = np.concatenate(
            [
                (np.minimum(k, last) - np.maximum(after, first)) / (last - first),
                (np.minimum(k, own[has]) - after) / own[has],
            ]
        )
        where = np.concatenate([row, has]), np.concatenate([items[row, place], self.twin[of[has]]])
        shares = sparse.csr_array((values, where), shape=items.shape[:1] + self.twin.shape)
        if not own.any() and self._distinct:
            return shares
        shares = (shares @ self._members).tocoo()  # from the first of its twins to each of them, but the item itself
        other = shares.col != of[shares.row]
        where = shares.row[other], shares.col[other]
        return sparse.csr_array((shares.data[other], where), shape=shares.shape)

    def entries(self, k):
        """(n,): how many items have a share in each item's k nearest: k, or more where the last places tie."""
        sizes = np.bincount(self.twin, minlength=len(self.twin))
        last = np.maximum(self.within, self.twins[:, None])
        reaching = np.where((self.within >= k) & (self.items >= 0), last, np.iinfo(np.int64).max)
        found = reaching.min(axis=1, initial=np.iinfo(np.int64).max)
        return np.where(self.twins >= k, sizes[self.twin] - 1, found)

    @property
    def _distinct(self):
        return bool((self.twin == np.arange(len(self.twin))).all())

    @property
    def _members(self):
        n = len(self.twin)
        return sparse.csr_array((np.ones(n), (self.twin, np.arange(n))), shape=(n, n))

    def check(self, k, name="k"):
        """ValueError unless 1 <= k <= what the ranking was made for."""
        longest = int((self.within.max(axis=1, initial=0, where=self.items >= 0).clip(self.twins)).min())
        if not 1 <= k <= longest:
            raise ValueError(f"{name} is {k}; wanted 1 to {longest}, the length of the neighbour lists")

    def first(self, k):
        """(n, k) int64: the k nearest items, ties to the lower index."""
        n = len(self.items)
        if self.items.shape[1] >= k and self._distinct:
            return self.items[:, :k].astype(np.int64)  # a search puts the lower index first
        members = np.split(np.argsort(self.twin, kind="stable"), np.bincount(self.twin, minlength=n).cumsum()[:-1])
        lists = np.empty((n, k), dtype=np.int64)
        for i, (row, within) in enumerate(zip(self.items, self.within, strict=True)):
            found = [members[self.twin[i]][members[self.twin[i]] != i]]
            count = len(found[0])
            for stop in np.unique(within[row >= 0]):
                if count >= k:
                    break
                found.append(np.sort(np.concatenate([members[j] for j in row[(within == stop) & (row >= 0)]])))
                count = stop
            lists[i] = np.concatenate(found)[:k]
        return lists


def rank_in_full(neighbours, tied, twin):
    """The Ranking of all items from that of the items that differ.

    Parameters: neighbours (m, w) integers: the nearest of the m items that are the first of their twins, numbered among
        themselves, -1 behind a row's end. tied (m, w) bool: whether each is as far as the one before it. twin (n,).
    """
    sizes = np.bincount(twin, minlength=len(twin))
    firsts = np.flatnonzero(sizes)
    m, width = neighbours.shape
    if m == len(twin) and not tied.any():
        return Ranking(neighbours, np.broadcast_to(np.arange(1, width + 1), neighbours.shape), twin)
    items = np.where(neighbours >= 0, firsts[neighbours], -1)
    within = np.where(items >= 0, sizes[items], 0).cumsum(axis=1) + sizes[firsts][:, None] - 1
    for t in range(width - 2, -1, -1):
        within[:, t] = np.where(tied[:, t + 1], within[:, t + 1], within[:, t])
    row = np.searchsorted(firsts, twin)
    return Ranking(items[row], within[row], twin)


def plain_ranking(lists):
    """The Ranking of neighbour lists (n, k) in which nothing ties. Raises: ValueError as checked_lists."""
    lists = checked_lists(lists, "lists")
    places = np.broadcast_to(np.arange(1, lists.shape[1] + 1), lists.shape)
    return Ranking(lists, places, np.arange(len(lists)))


def checked_lists(lists: ArrayLike, name: str) -> NDArray[np.integer]:
    """lists as an array, or a ValueError unless they are (n, k) integers of 0 to n - 1, no row with its own number."""
    lists = np.asarray(lists)
    if lists.ndim != 2 or lists.dtype.kind not in "iu":
        raise ValueError(f"{name}: {lists.dtype} of shape {lists.shape}; wanted integer neighbour lists, (n, k)")
    outside = ((lists < 0) | (lists >= len(lists))).any(axis=1)
    own = (lists == np.arange(len(lists))[:, None]).any(axis=1)
    if own.any():
        raise ValueError(f"{name}: row {own.argmax()} names itself; wanted lists without the item itself")
    if outside.any():
        raise ValueError(f"{name}: row {outside.argmax()} names an item outside 0 to {len(lists) - 1}")
    return lists


def blocks(entries):
    """Slices of rows of so many entries each, with some ENTRIES in all, or of one row."""
    start = 0
    while start < len(entries):
        stop = start + max(1, int(np.searchsorted(entries[start:].cumsum(), ENTRIES, side="right")))
        yield slice(start, stop)
        start = stop
