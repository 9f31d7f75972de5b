"""How many dimensions embeddings use: effective rank (linear) and intrinsic dimension (of a curved surface)."""

from typing import NamedTuple

import numpy as np
from scipy import linalg

from lossmap.measures.checks import checked_matrix
from lossmap.measures.influence import PerItem
from lossmap.measures.resampling import image_counts, percentile_interval
from lossmap.measures.statistics import MeanInterval, check_resampling


class IntrinsicDimension(NamedTuple):
    """A dimension with its interval, and how many items it rests on."""

    interval: MeanInterval
    used: int


def effective_rank(x, resamples=2000, confidence=0.95, seed=0):
    """Effective rank of embeddings, with bootstrap interval over items.

    The exponential of the entropy of the singular values of centred x, taken as shares of their sum. For the interval
    the principal directions stay and each item's squares along them are resampled: the bootstrap to first order.
    Parameters: x (n, d), real, n >= 2.
    Returns: MeanInterval in [1, min(n - 1, d)]: r for equal variance in r directions; the scale does not matter. nan
        where all items are alike.
    Raises: ValueError if n < 2, or a value is not finite (the message names the first such row).
    Source: Roy and Vetterli, The effective rank, EUSIPCO 2007.
    """
    x = checked_matrix(x, "x").astype(np.float64)
    if len(x) < 2:
        raise ValueError(f"x has {len(x)} row; wanted at least 2")
    check_resampling(resamples, confidence)
    x = x - x.mean(axis=0)
    wide = x.shape[1] > len(x)
    values, vectors = linalg.eigh(x @ x.T if wide else x.T @ x)
    keep = values > max(values[-1], 0) * 1e-12
    if not keep.any():
        return MeanInterval(np.nan, np.nan, np.nan)
    # The interval needs no more digits than float32 has.
    vectors = vectors[:, keep].astype(np.float32)
    along = vectors * np.sqrt(values[keep]).astype(np.float32) if wide else x.astype(np.float32) @ vectors
    squares = along**2
    batches = [counts.astype(np.float32) @ squares for counts in image_counts(len(x), resamples, seed)]
    return percentile_interval(
        _rank_of(values[keep][None])[0], np.concatenate([_rank_of(batch) for batch in batches]), confidence
    )


def intrinsic_dimension(x, neighbours, confidence=0.95):
    """Intrinsic dimension by the two nearest neighbours (TwoNN), with its interval for the population.

    Near an item of a d-dimensional surface the ratio mu of the distances of its second and first neighbour follows
    mu^-(d + 1), of which the likeliest d is (n - 1) / sum(log mu). Dense and sparse places count alike.
    Parameters: x (n, d), real. neighbours (n, at least 2) integers: the nearest others by Euclidean distance.
    Returns: IntrinsicDimension; 2 for a sheet, however it is rolled. High dimensions are understated where items are
        few. Items with a twin (distance 0) say nothing and are left out; `used` counts the rest. inf where all
        second neighbours are as near as the first. For the interval, each item answers for its own log mu and, as one
        of two neighbours, for half of what those of others are off the mean.
    Raises: ValueError if fewer than 2 items can be used, or a value is not finite (the first row is named).
    Source: Facco et al. 2017, doi:10.1038/s41598-017-11873-y; the estimator as Denti et al. 2022, eq. 8.
    """
    x = checked_matrix(x, "x").astype(np.float64)
    neighbours = np.asarray(neighbours)
    if neighbours.ndim != 2 or neighbours.shape[0] != len(x) or neighbours.shape[1] < 2:
        raise ValueError(f"neighbours: has shape {neighbours.shape}; wanted ({len(x)}, at least 2)")
    first, second = (np.linalg.norm(x - x[neighbours[:, j]], axis=1) for j in range(2))
    used = first > 0
    if used.sum() < 2:
        raise ValueError(f"{used.sum()} of {len(x)} items differ from their nearest neighbour; wanted at least 2")
    logs = np.log(second[used] / first[used])
    off, own = np.zeros(len(x)), logs - logs.mean()
    off[used] = own
    for j in range(2):
        off += np.bincount(neighbours[used, j], own / 2, len(x))
    mean = PerItem(logs, off[used]).interval(confidence, bounds=(0, np.inf))
    factor = (len(logs) - 1) / len(logs)
    with np.errstate(divide="ignore"):
        value, low, high = (factor / np.float64(part) for part in (mean.mean, mean.high, mean.low))
    return IntrinsicDimension(MeanInterval(float(value), float(low), float(high)), int(used.sum()))


def _rank_of(squares):
    """(b, r) sums of squares along directions -> (b,) effective ranks."""
    singular = np.sqrt(squares)
    shares = singular / singular.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.exp(-np.where(shares > 0, shares * np.log(shares), 0).sum(axis=1))
