"""Neighbours by other indexes: on whole embeddings without holding them all, and on other ways to pool patches."""

from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from scipy import linalg

from lossmap.measures.checks import check_k, checked_matrix
from lossmap.measures.ranking import rank_in_full

METRICS = ("euclidean", "cosine")
PRODUCT_BYTES = 2**27  # of each side, in one product of two blocks in float64
DIGITS = 10  # of squared distances as shares of the item's squared length: what differs less is a tie
KEPT_VARIANCE = 0.99  # of whitened embeddings; the rest would be noise blown up


class Pooled(NamedTuple):
    """Mean-pooled embeddings without sink tokens (n, d), and the share of tokens left out of each item (n,)."""

    mean: np.ndarray
    left_out: np.ndarray


def streamed_neighbours(read: Callable, n: int, k: int, block: int, device="cpu"):
    """Nearest neighbours of items too large to hold together, such as all patches of an image side by side.

    Blocks of items are read, two at a time, every block with itself and with each that follows; each item keeps the k
    best so far.

    Parameters: read(start, stop) -> (stop - start, ...) real, the items of a block: any shape, any precision. n items;
        k, 1 <= k < n; block, items read at once: memory is two blocks as read, and 0.5 GB. device: where to compute.
    Returns: dict: "euclidean", and "cosine", inner product of the items scaled to unit length -> Ranking. Computed
        in float64; what differs by less than 10 digits is a tie, whatever the block. Equal items are told by a digest,
        and only the first of them is compared.
    Raises: ValueError if k or block is out of range, a value is not finite, or an item has length zero (the first is
        named).
    """
    check_k(k, n)
    if block < 1:
        raise ValueError(f"block is {block}; wanted at least 1")
    starts = range(0, n, block)
    best = {metric: _Best(n, k) for metric in METRICS}
    lengths, twin = {}, np.empty(n, dtype=np.int64)
    seen: dict[bytes, int] = {}

    def told(start, items):
        """Lengths, and twins, of a block read for the first time."""
        lengths[start] = _squared_lengths(items, start)
        for i, item in enumerate(items.cpu().numpy(), start):
            twin[i] = seen.setdefault(blake2b(item.tobytes(), digest_size=16).digest(), i)

    for a in starts:
        one = _read(read, a, min(a + block, n), device)
        if a not in lengths:
            told(a, one)
        for b in starts[a // block :]:
            two = one if b == a else _read(read, b, min(b + block, n), device)
            if b not in lengths:
                told(b, two)
            again = [
                torch.from_numpy(twin[s : s + len(x)] != np.arange(s, s + len(x))) for s, x in ((a, one), (b, two))
            ]
            products = _products(one, two)
            row, column = lengths[a][:, None], lengths[b][None]
            distances = {"euclidean": row + column - 2 * products, "cosine": 2 - 2 * products / (row * column).sqrt()}
            for metric, distance in distances.items():
                distance[again[0].to(device)] = torch.inf
                distance[:, again[1].to(device)] = torch.inf
                if b == a:
                    distance.fill_diagonal_(torch.inf)
                # As shares of the item's own squared length, so that digits mean the same for all.
                best[metric].offer(a, b, distance / row if metric == "euclidean" else distance)
                if b != a:
                    best[metric].offer(b, a, (distance / column if metric == "euclidean" else distance).T)
    return {metric: found.ranking(twin) for metric, found in best.items()}


def pooled_without_sinks(tokens, ratio):
    """Mean over an item's tokens, leaving out its sinks: tokens much longer than the others, which hold no place.

    Parameters: tokens (n, t, d), real. ratio: a token longer than so many times the item's median token is a sink.
    Returns: Pooled; all tokens count where none is a sink.
    Raises: ValueError if ratio is not above 1, or a value is not finite (the first item is named).
    Source: outlier tokens of Darcet et al. 2024, arXiv:2309.16588, without their cut-off, which is one model's.
    """
    if not ratio > 1:
        raise ValueError(f"ratio is {ratio}; wanted more than 1, else half of the tokens would be sinks")
    tokens = np.asarray(tokens, dtype=np.float32)
    bad = ~np.isfinite(tokens).all(axis=(1, 2))
    if bad.any():
        raise ValueError(f"tokens: item {bad.argmax()} is not finite")
    lengths = np.linalg.norm(tokens, axis=2)
    kept = lengths <= ratio * np.median(lengths, axis=1, keepdims=True)
    mean = np.einsum("ntd,nt->nd", tokens, kept.astype(np.float32)) / kept.sum(axis=1, keepdims=True)
    return Pooled(mean, 1 - kept.mean(axis=1))


def whitened(x):
    """Principal components that hold 99% of the variance, each scaled to deviation 1: no direction outweighs another.

    Parameters: x (n, d), real. Returns: (n, r) float64; (n, 1) zeros where all rows are alike.
    Raises: ValueError if a value is not finite (the first row is named).
    """
    x = checked_matrix(x, "x").astype(np.float64)
    centred = x - x.mean(axis=0)
    left, singular, _ = linalg.svd(centred, full_matrices=False)
    power = (singular**2).cumsum()
    if not power[-1]:
        return np.zeros((len(x), 1))
    rank = int(np.searchsorted(power, KEPT_VARIANCE * power[-1])) + 1
    return left[:, :rank] * np.sqrt(len(x))


class _Best:
    """The k nearest items so far of each of n items, and all that tie with the k-th."""

    def __init__(self, n, k):
        self.k = k
        self.items = np.full((n, k), n, dtype=np.int64)
        self.distances = np.full((n, k), np.inf)

    def offer(self, first, column, distances):
        """distances (rows, columns): of items first, first + 1, ... to items column, column + 1, ..."""
        rows = slice(first, first + len(distances))
        new = distances.cpu().numpy().round(DIGITS)
        names = np.broadcast_to(np.arange(column, column + new.shape[1]), new.shape)
        new, names = self._nearest(new, names)
        new = np.concatenate([self.distances[rows], new], axis=1)
        names = np.concatenate([self.items[rows], names], axis=1)
        new, names = self._nearest(new, names)
        order = np.lexsort((names, new), axis=1)
        new, names = (np.take_along_axis(values, order, axis=1) for values in (new, names))
        wider = new.shape[1] - self.items.shape[1]
        if wider > 0:
            self.items = np.pad(self.items, ((0, 0), (0, wider)), constant_values=len(self.items))
            self.distances = np.pad(self.distances, ((0, 0), (0, wider)), constant_values=np.inf)
        self.distances[rows], self.items[rows] = np.inf, len(self.items)
        self.distances[rows, : new.shape[1]], self.items[rows, : new.shape[1]] = new, names

    def _nearest(self, distances, names):
        """Without what is farther than the k-th, as far as all rows allow."""
        if distances.shape[1] <= self.k:
            return distances, names
        limit = np.partition(distances, self.k - 1, axis=1)[:, self.k - 1 : self.k]
        near = ((distances <= limit) & (distances < np.inf)).sum(axis=1).max()
        width = max(int(near), self.k)
        if width >= distances.shape[1]:
            return distances, names
        nearest = np.argpartition(distances, width - 1, axis=1)[:, :width]
        return tuple(np.take_along_axis(values, nearest, axis=1) for values in (distances, names))

    def ranking(self, twin):
        """The Ranking of all items; twin (n,): the first that equals each."""
        firsts = np.flatnonzero(twin == np.arange(len(twin)))
        items, distances = self.items[firsts], self.distances[firsts]
        count = max(1, min(self.k, len(firsts) - 1))
        items = np.where((distances < np.inf) & (distances <= distances[:, count - 1 : count]), items, -1)
        items = items[:, : max(1, int((items >= 0).sum(axis=1).max()))]
        tied = np.zeros(items.shape, dtype=bool)
        tied[:, 1:] = (items[:, 1:] >= 0) & (distances[:, 1 : items.shape[1]] == distances[:, : items.shape[1] - 1])
        return rank_in_full(np.where(items >= 0, np.searchsorted(firsts, items), -1), tied, twin)


def _read(read, start, stop, device):
    values = np.asarray(read(start, stop))
    return torch.from_numpy(np.ascontiguousarray(values.reshape(len(values), -1))).to(device)


def _slabs(features, rows):
    size = max(1, PRODUCT_BYTES // (8 * max(1, rows)))
    return [slice(start, min(start + size, features)) for start in range(0, features, size)]


def _products(one, two):
    """(a, b) float64 inner products, from slabs of features."""
    total = torch.zeros((len(one), len(two)), dtype=torch.float64, device=one.device)
    for slab in _slabs(one.shape[1], max(len(one), len(two))):
        total += one[:, slab].double() @ two[:, slab].double().T
    return total


def _squared_lengths(items, start):
    lengths = torch.zeros(len(items), dtype=torch.float64, device=items.device)
    for slab in _slabs(items.shape[1], len(items)):
        lengths += items[:, slab].double().square().sum(1)
    for wrong, why in ((~torch.isfinite(lengths), "is not finite"), (lengths == 0, "has length zero")):
        if wrong.any():
            raise ValueError(f"item {start + int(wrong.int().argmax())} {why}")
    return lengths
