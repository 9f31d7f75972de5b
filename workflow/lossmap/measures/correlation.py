"""Spearman's rank correlation with its interval."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats

from lossmap.measures.influence import PerItem
from lossmap.measures.statistics import bootstrap_draws, check_resampling, checked_vector, interval_tails

NEGLIGIBLE = 1e-10  # share of a variance below which nothing but rounding is left of it
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


def neighbour_spearman(x, y, confidence=0.95, controls=()):
    """Spearman's rank correlation of two measures that rest on neighbours, with its interval for the population.

    An item moves the correlation by its own pair of values, and as a neighbour by the values of others: each value's
    weight in the correlation times what the item adds to it. Half of what counts twice, for the query and for the
    neighbour, is taken out (PerItem.shared). With controls: the partial correlation, of what the ranks of controls
    leave of the ranks of x and y.
    Parameters: x, y: PerItem with parts, of the same n items, n >= 3. confidence in (0, 1). controls: list of c vectors
        (n,), real, taken as they are, whatever neighbours they rest on.
    Returns: RankCorrelation; the interval is symmetric in Fisher's z, p two-sided by Student's t with n - 2 - c degrees
        of freedom. nan, with a reason, where x or y is constant, n < c + 3, or the controls explain all of x or y;
        interval and p alone where parts are missing.
    Raises: ValueError as spearman and rank_residuals.
    """
    n, freedom = len(x.values), len(x.values) - 2 - len(controls)
    plain = spearman(x.values, y.values, 1, confidence)
    if plain.reason:
        return plain
    left = [rank_residuals(side.values, controls) for side in (x, y)]
    whole = [rank_residuals(side.values, []) for side in (x, y)]
    if freedom < 1 or any(rest @ rest <= NEGLIGIBLE * (own @ own) for rest, own in zip(left, whole, strict=True)):
        reason = f"{n} items for {len(controls)} controls" if freedom < 1 else "the controls explain all of x or y"
        return RankCorrelation(np.nan, np.nan, np.nan, np.nan, n, reason)
    ranks = [stats.zscore(rest) for rest in left]
    rho, parts = float(np.clip((ranks[0] * ranks[1]).mean(), -1, 1)) if controls else plain.rho, 0
    if x.parts is None or y.parts is None:
        return RankCorrelation(rho, np.nan, np.nan, np.nan, n, "too many ties for an interval")
    for side, rest, own, place, other in zip((x, y), left, whole, ranks, ranks[::-1], strict=True):
        # How a rank follows its value, by the best line, in deviations of what the controls leave.
        slope = (own * stats.zscore(side.values)).mean() / side.values.std() / rest.std()
        parts = parts + sparse.diags_array((other - rho * place) * slope) @ side.parts
    own = ranks[0] * ranks[1] - rho * (ranks[0] ** 2 + ranks[1] ** 2) / 2
    error = PerItem(own, own + parts.sum(axis=0), parts.tocsr(), HALF).error
    if abs(rho) == 1 or not error:
        return RankCorrelation(rho, rho, rho, 0.0, n)
    half = stats.t.ppf((1 + confidence) / 2, freedom) * error / (1 - rho**2)
    low, high = np.tanh([np.arctanh(rho) - half, np.arctanh(rho) + half])
    p = 2 * stats.t.sf(abs(np.arctanh(rho)) * (1 - rho**2) / error, freedom)
    return RankCorrelation(rho, float(low), float(high), float(p), n)


def rank_residuals(x, controls):
    """What the ranks of controls leave of the ranks of x, by linear regression.

    Parameters: x (n,), real; controls: list of vectors (n,), real. Returns: (n,) float64, mean 0, in ranks; without
        controls the ranks less their mean.
    Raises: ValueError if lengths differ or a value is not finite (the first is named).
    """
    x = checked_vector(x, "x")
    columns = [checked_vector(control, f"control {i}") for i, control in enumerate(controls)]
    for i, column in enumerate(columns):
        if len(column) != len(x):
            raise ValueError(f"x has {len(x)} values and control {i} {len(column)}; wanted as many")
    ranks, basis = stats.rankdata(x) - (len(x) + 1) / 2, rank_basis(columns, len(x))
    return ranks - basis @ (basis.T @ ranks)


def rank_basis(controls, n):
    """Orthonormal basis (n, c) of the centred ranks of controls, each (n,); less than c where they repeat others."""
    ranks = np.array([stats.rankdata(control) - (n + 1) / 2 for control in controls]).reshape(-1, n)
    vectors, sizes, _ = np.linalg.svd(ranks.T, full_matrices=False)
    return vectors[:, sizes > np.sqrt(NEGLIGIBLE) * max(sizes, default=0.0)]


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
