"""Bootstrap intervals over items, and rank correlation."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

DRAWS_AT_ONCE = 2**20  # bounds memory; part of what a seed means, so do not make it an argument


class MeanInterval(NamedTuple):
    """A mean and its interval, in the unit of the values."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho in [-1, 1], its interval and two-sided p over n pairs; nan, with a reason, where undefined."""

    rho: float
    low: float
    high: float
    p: float
    n: int
    reason: str = ""


def bootstrap_mean(values, resamples=2000, confidence=0.95, seed=0):
    """Mean of values with its percentile bootstrap interval over items.

    Parameters: values (n,), real, one for each item. resamples, at least 1. confidence in (0, 1). seed: int or
        sequence.
    Returns: MeanInterval (mean, low, high), floats; low = high = mean for a single item.
    Raises: ValueError if values is not 1-d, is empty, or holds a value that is not finite (the message names the
        first).
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    values = checked_vector(values, "values")
    check_resampling(resamples, confidence)
    means = [values[draws].mean(axis=1) for draws in bootstrap_draws(len(values), resamples, seed)]
    low, high = np.quantile(np.concatenate(means), interval_tails(confidence))
    return MeanInterval(float(values.mean()), float(low), float(high))


def spearman(x, y, resamples=2000, confidence=0.95, seed=0):
    """Spearman's rank correlation of x and y, ties at their mean rank, with a percentile bootstrap interval over pairs.

    Parameters: x, y (n,), real, n >= 3; entry i is the same item in both. resamples, at least 1. confidence in (0, 1).
        seed: int or sequence.
    Returns: RankCorrelation. p is two-sided, from Student's t. Where x or y is constant, rho, interval and p are nan
        and reason says why. Resamples in which a side happens to be constant have no rho and are left out of the
        interval.
    Raises: ValueError if lengths differ, there are fewer than 3 pairs, or a value is not finite (the first is named).
    Source: scipy.stats.spearmanr for rho and p.
    """
    x, y = checked_vector(x, "x"), checked_vector(y, "y")
    check_resampling(resamples, confidence)
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} values and y has {len(y)}; entry i must be the same item in both")
    if len(x) < 3:
        raise ValueError(f"there are {len(x)} pairs; wanted at least 3")
    constant = [name for name, side in (("x", x), ("y", y)) if side.min() == side.max()]
    if constant:
        verb = "is" if len(constant) == 1 else "are"
        return RankCorrelation(np.nan, np.nan, np.nan, np.nan, len(x), f"{' and '.join(constant)} {verb} constant")
    rho, p = stats.spearmanr(x, y)
    rank_x, rank_y = RanksWithin(x), RanksWithin(y)
    resampled = []
    for draws in bootstrap_draws(len(x), resamples, seed):
        a, b = rank_x.of(draws), rank_y.of(draws)
        spread = np.sqrt(np.einsum("bi,bi->b", a, a) * np.einsum("bi,bi->b", b, b))
        with np.errstate(invalid="ignore"):
            resampled.append(np.einsum("bi,bi->b", a, b) / spread)
    resampled = np.concatenate(resampled)
    defined = resampled[~np.isnan(resampled)]
    low, high = np.quantile(defined, interval_tails(confidence)) if len(defined) else (np.nan, np.nan)
    return RankCorrelation(float(rho), float(low), float(high), float(p), len(x))


class RanksWithin:
    """Ranks of values among a resample of themselves, by counting: the values are sorted once for all resamples."""

    def __init__(self, values):
        distinct, self.group = np.unique(values, return_inverse=True)
        self.groups = len(distinct)

    def of(self, draws):
        """draws (b, n) indices of values -> (b, n) mean ranks within each row, less their mean (n + 1) / 2."""
        batch, n = draws.shape
        drawn = self.group[draws] + np.arange(batch)[:, None] * self.groups
        counts = np.bincount(drawn.ravel(), minlength=batch * self.groups).reshape(batch, self.groups)
        mean_rank = counts.cumsum(axis=1) - (counts - 1) / 2
        return mean_rank.ravel()[drawn] - (n + 1) / 2


def bootstrap_draws(n, resamples, seed):
    """(b, n) indices drawn with replacement, in batches of bounded size, `resamples` rows in all."""
    rng = np.random.default_rng(seed)
    size = max(1, DRAWS_AT_ONCE // n)
    for start in range(0, resamples, size):
        yield rng.integers(0, n, (min(size, resamples - start), n), dtype=np.int32)


def interval_tails(confidence):
    """Quantiles at which an interval of this confidence begins and ends."""
    return [(1 - confidence) / 2, (1 + confidence) / 2]


def check_resampling(resamples, confidence):
    """Raises ValueError unless resamples >= 1 and 0 < confidence < 1."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; wanted at least 1")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; wanted a number between 0 and 1")


def checked_vector(values, name):
    """values as (n,) float64. Raises ValueError, naming the first bad entry, if they are no finite, real vector."""
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"{name}: has shape {values.shape}; wanted 1 dimension")
    if values.size == 0:
        raise ValueError(f"{name}: is empty; wanted at least one value")
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{name}: holds {values.dtype}; wanted real numbers")
    values = values.astype(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(f"{name}: {bad.sum()} of {len(values)} are not finite; the first is entry {bad.argmax()}")
    return values
