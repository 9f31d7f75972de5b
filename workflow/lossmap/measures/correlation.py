"""Spearman's rank correlation with its interval."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats

from lossmap.measures.influence import PerItem
from lossmap.measures.statistics import bootstrap_draws, check_resampling, checked_vector, interval_tails

HALF = 0.5  # of what counts twice: all of it would leave coverage below 90%, none of it near 100%


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho in [-1, 1], its interval and two-sided p over n pairs; nan, with a reason, where undefined."""

    rho: float
    low: float
    high: float
    p: float
    n: int
    reason: str = ""


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


def neighbour_spearman(x, y, confidence=0.95):
    """Spearman's rank correlation of two measures that rest on neighbours, with its interval for the population.

    An item moves the correlation by its own pair of values, and as a neighbour by the values of others: each value's
    weight in the correlation times what the item adds to it. Half of what counts twice, for the query and for the
    neighbour, is taken out (PerItem.shared).
    Parameters: x, y: PerItem with parts, of the same n items, n >= 3. confidence in (0, 1).
    Returns: RankCorrelation; the interval is symmetric in Fisher's z, p two-sided by Student's t. nan, with a reason,
        where x or y is constant; interval and p alone where parts are missing.
    Raises: ValueError as spearman.
    """
    n = len(x.values)
    plain = spearman(x.values, y.values, 1, confidence)
    if plain.reason:
        return plain
    if x.parts is None or y.parts is None:
        return RankCorrelation(plain.rho, np.nan, np.nan, np.nan, n, "too many ties for an interval")
    ranks = [stats.zscore(stats.rankdata(side.values)) for side in (x, y)]
    rho, parts = plain.rho, 0
    for side, own, other in ((x, *ranks), (y, *ranks[::-1])):
        slope = (own * stats.zscore(side.values)).mean() / side.values.std()  # of ranks, by the best line
        parts = parts + sparse.diags_array((other - rho * own) * slope) @ side.parts
    own = ranks[0] * ranks[1] - rho * (ranks[0] ** 2 + ranks[1] ** 2) / 2
    error = PerItem(own, own + parts.sum(axis=0), parts.tocsr(), HALF).error
    if abs(rho) == 1 or not error:
        return RankCorrelation(rho, rho, rho, 0.0, n)
    half = stats.t.ppf((1 + confidence) / 2, n - 2) * error / (1 - rho**2)
    low, high = np.tanh([np.arctanh(rho) - half, np.arctanh(rho) + half])
    p = 2 * stats.t.sf(abs(np.arctanh(rho)) * (1 - rho**2) / error, n - 2)
    return RankCorrelation(rho, float(low), float(high), float(p), n)


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
