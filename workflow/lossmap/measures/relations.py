"""How a loss goes with a score: rank correlation, what is left of it given confounders, and how likely it is by chance.

"Partial" is whatever holds controls constant: it is the finding, and the raw statistic stands beside it. Intervals and
p-values are of items (images, or questions of one image each). Where a statistic is undefined it is nan, and a reason
says why: nothing is dropped.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from lossmap.measures.correlation import NEGLIGIBLE, RankCorrelation, RanksWithin, rank_basis, spearman
from lossmap.measures.resampling import percentile_interval
from lossmap.measures.statistics import (
    DRAWS_AT_ONCE,
    bootstrap_draws,
    check_resampling,
    checked_vector,
    interval_tails,
)

# The losses that are correlated, by their columns. Of the norm difference it is the absolute value: a loss is not
# negative, and signed differences, which the maps show, cancel out in a mean over patches.
LOSSES = ("squared_error", "absolute_norm_difference", "cosine_error")
WITHIN = "relevant minus irrelevant"  # within each image, so that what sets images apart cancels out


class PermutationP(NamedTuple):
    """Two-sided p in (0, 1]; at_floor: no permutation was as extreme, so that p is an upper bound, 2 / (1 + tried)."""

    p: float
    at_floor: bool


@dataclass(frozen=True)
class Relation:
    """How loss and score of n items go together; nan, with a reason, where undefined.

    raw_rho: Spearman's rank correlation, in [-1, 1]. partial_rho: partial rank correlation given the controls. Each
    with its bootstrap interval (_low, _high) and two-sided p by permutation (_p; _p_at_floor: p is an upper bound).
    """

    n: int
    raw_rho: float = np.nan
    raw_rho_low: float = np.nan
    raw_rho_high: float = np.nan
    raw_rho_p: float = np.nan
    raw_rho_p_at_floor: bool = False
    partial_rho: float = np.nan
    partial_rho_low: float = np.nan
    partial_rho_high: float = np.nan
    partial_rho_p: float = np.nan
    partial_rho_p_at_floor: bool = False
    reason: str = ""


@dataclass(frozen=True)
class MeanDifference:
    """Mean of one group less another's, its bootstrap interval and permutation p; nan, with a reason, if undefined."""

    difference: float = np.nan
    difference_low: float = np.nan
    difference_high: float = np.nan
    difference_p: float = np.nan
    difference_p_at_floor: bool = False
    difference_reason: str = ""


def relate(loss, score, controls, resamples=2000, permutations=9999, confidence=0.95, seed=0):
    """Spearman's rank correlation of loss and score with interval, permutation p, and partial correlation.

    Parameters: loss, score (n,), real; entry i is the same item in both. controls: list of (n,), what the partial
        correlation holds constant. resamples, of each bootstrap. permutations, of the test. confidence in (0, 1).
    Returns: Relation. With fewer than 3 items, or where loss or score is constant, everything is nan.
    Raises: ValueError if lengths differ or a value is not finite (the first is named).
    """
    loss, score = _paired(loss, score, "loss", "score")
    n = len(loss)
    if reason := _undefined({"loss": loss, "score": score}):
        return Relation(n, reason=reason)
    whole = spearman(loss, score, resamples, confidence, seed)
    part = partial_spearman(loss, score, controls, resamples, confidence, seed)
    by_chance, given = permutation_p(loss, score, permutations, seed), PermutationP(np.nan, False)
    if not part.reason:
        given = partial_permutation_p(*map(stats.rankdata, (loss, score)), controls, permutations, seed)
    reason = f"partial: {part.reason}" if part.reason else ""
    raw = (whole.rho, whole.low, whole.high, *by_chance)
    return Relation(n, *raw, part.rho, part.low, part.high, *given, reason)


def spearman_rho(x, y, controls=()):
    """Spearman's rank correlation of x and y (n,), alone, or partial given controls, each (n,).

    Returns: float in [-1, 1]; nan where `partial_spearman` is.
    Raises: ValueError as `partial_spearman`.
    """
    x, y = _paired(x, y, "x", "y")
    controls = [_paired(x, control, "x", f"control {i}")[1] for i, control in enumerate(controls)]
    if _undefined({"x": x, "y": y}) or len(x) < len(controls) + 3:
        return np.nan
    if not controls:
        return float(stats.spearmanr(x, y).statistic)
    return float(_partial([stats.rankdata(side)[None] - (len(x) + 1) / 2 for side in (x, y, *controls)])[0])


def partial_spearman(x, y, controls, resamples=2000, confidence=0.95, seed=0):
    """Partial rank correlation of x and y given controls, with a percentile bootstrap interval over items.

    All columns are replaced by their ranks (ties at their mean); from the ranks of x and y, what a linear regression on
    those of the controls explains is taken out; the rest is correlated (Pearson). Without controls: Spearman's rho. A
    constant control, or one that repeats another, takes nothing out. Ranks and regression are made anew in every
    resample.

    Parameters: x, y (n,), real; controls: list of c vectors (n,). resamples, at least 1. confidence in (0, 1).
    Returns: RankCorrelation; p is two-sided, from Student's t with n - 2 - c degrees of freedom. nan, with a reason, if
        n < c + 3, a side is constant, or the controls explain all of it.
    Raises: ValueError if lengths differ or a value is not finite (the first is named).
    Source: Kim 2015, ppcor: an R package for a fast calculation to semi-partial correlation coefficients.
    """
    x, y = _paired(x, y, "x", "y")
    check_resampling(resamples, confidence)
    columns, n = [x, y], len(x)
    for i, control in enumerate(controls):
        columns.append(_paired(x, control, "x", f"control {i}")[1])
    freedom = n - len(columns)
    reason = _undefined({"x": x, "y": y}) or (f"{n} items for {len(controls)} controls" if freedom < 1 else "")
    if reason:
        return RankCorrelation(np.nan, np.nan, np.nan, np.nan, n, reason)
    ranks = [RanksWithin(column) for column in columns]
    rho = _partial([column.of(np.arange(n)[None]) for column in ranks])[0]
    if np.isnan(rho):
        return RankCorrelation(np.nan, np.nan, np.nan, np.nan, n, "the controls explain all of x or y")
    resampled = [_partial([column.of(draws) for column in ranks]) for draws in bootstrap_draws(n, resamples, seed)]
    resampled = np.concatenate(resampled)
    defined = resampled[~np.isnan(resampled)]
    low, high = np.quantile(defined, interval_tails(confidence)) if len(defined) else (np.nan, np.nan)
    with np.errstate(divide="ignore"):
        p = 2 * stats.t.sf(abs(rho) * np.sqrt(freedom / (1 - rho**2)), freedom)
    return RankCorrelation(float(rho), float(low), float(high), float(p), n)


def _partial(ranks):
    """Ranks of x, y and controls, each (b, n) with mean 0 -> (b,) partial correlations, nan where nothing is left."""
    ranks = np.stack(ranks, axis=1)
    rest, defined = _left_over(ranks @ ranks.transpose(0, 2, 1))
    spread = np.sqrt(np.where(defined[:, None], np.diagonal(rest, axis1=1, axis2=2), 1).prod(axis=1))
    return np.where(defined, np.clip(rest[:, 0, 1] / spread, -1, 1), np.nan)


def _left_over(products):
    """Products (b, 2 + c, 2 + c) of x, y and c controls -> those (b, 2, 2) of what the controls leave of x and y, and
    (b,) whether anything but rounding is left of both."""
    sides, controls = products[:, :2, :2], products[:, 2:, 2:]
    # The pseudo-inverse, for a control may be constant in a resample, or two may be the same.
    explained = np.linalg.pinv(controls, rcond=NEGLIGIBLE, hermitian=True) if controls.size else controls
    rest = sides - products[:, :2, 2:] @ explained @ products[:, 2:, :2]
    before, after = (np.diagonal(matrix, axis1=1, axis2=2) for matrix in (sides, rest))
    return rest, (after > NEGLIGIBLE * before).all(axis=1)


def permutation_p(x, y, permutations=9999, seed=0):
    """Two-sided p of Spearman's rho when x is dealt out to the items at random.

    Parameters: x, y (n,), real, n >= 3, neither constant. permutations, at least 1.
    Returns: PermutationP: twice the smaller one-sided p, each (1 + as extreme) / (1 + permutations); where there are
        no more than `permutations` orders in all, each of them is tried once, and nothing is added: p has no floor.
    Raises: ValueError if rho is undefined, or as `relate`.
    Source: Phipson and Smyth 2010, Permutation p-values should never be zero. scipy.stats.permutation_test.
    """
    x, y = _paired(x, y, "x", "y")
    if reason := _undefined({"x": x, "y": y}):
        raise ValueError(f"a permutation test needs 3 pairs that vary: {reason}")
    # Ranks don't change under permutation, and of their correlation only the sum of products does.
    rank_x, rank_y = (stats.rankdata(side) - (len(side) + 1) / 2 for side in (x, y))
    p = stats.permutation_test(
        (rank_x,),
        lambda ranks, axis: ranks @ rank_y,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=permutations,
        batch=_batch(len(x)),
        rng=np.random.default_rng(seed),
    ).pvalue
    return _with_floor(p, permutations, math.factorial(len(x)))


def partial_permutation_p(x, y, controls, permutations=9999, seed=0):
    """Two-sided p of the partial correlation of x and y given the ranks of controls.

    What the controls leave of x is dealt out to the items at random, and correlated with what they leave of y after
    the controls were taken out again: dealing makes it go with the controls by chance.

    Parameters: x, y (n,), real, of which the controls leave something; controls: list of c vectors (n,), n >= c + 3.
        permutations, at least 1. For a rank correlation, x and y are ranks.
    Returns: PermutationP: twice the smaller one-sided p, each (1 + as extreme) / (1 + permutations). Approximate: of 40
        ranks that go with a control by 0.7 each, and else by chance, 5% come out below 0.05; by 0.9 each, 8%.
    Source: Freedman and Lane 1983, A nonstochastic interpretation of reported significance levels; Winkler et al. 2014,
        Permutation inference for the general linear model.
    """
    x, y = (side - side.mean() for side in (np.asarray(x, np.float64), np.asarray(y, np.float64)))
    basis = rank_basis(controls, len(x))
    x, y = (side - basis @ (basis.T @ side) for side in (x, y))
    rng, n, total = np.random.default_rng(seed), len(x), x @ x

    def correlation(dealt):
        left = total - ((dealt @ basis) ** 2).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return dealt @ y / np.sqrt(np.where(left > NEGLIGIBLE * total, left, np.nan) * (y @ y))

    observed, lower, higher = correlation(x[None])[0], 1, 1
    for start in range(0, permutations, _batch(n)):
        found = correlation(rng.permuted(np.tile(x, (min(_batch(n), permutations - start), 1)), axis=1))
        # Negated, so that what is undefined counts as extreme.
        higher += int((~(found < observed - 1e-12)).sum())
        lower += int((~(found > observed + 1e-12)).sum())
    return _with_floor(min(1.0, 2 * min(lower, higher) / (1 + permutations)), permutations, np.inf)


def _with_floor(p, permutations, orders):
    """p of a test of so many permutations, out of so many orders in all, with whether it is the least it can be."""
    return PermutationP(float(p), bool(orders > permutations and p <= 2 / (1 + permutations) * (1 + 1e-9)))


def difference_of_means(a, b, resamples=2000, permutations=9999, confidence=0.95, seed=0):
    """Mean of a less mean of b, with a bootstrap interval, items drawn within each group, and a permutation p.

    Parameters: a (n,), b (m,), real, of different items. resamples, permutations, confidence: as in `relate`.
    Returns: MeanDifference, in the unit of the values; p is two-sided, as in `permutation_p`. nan, with a reason, if a
        group has fewer than 2 items, or all values are equal.
    Raises: ValueError if a value is not finite (the first is named).
    Source: scipy.stats.bootstrap, scipy.stats.permutation_test.
    """
    check_resampling(resamples, confidence)
    groups = [checked_vector(side, name) if np.size(side) else np.empty(0) for side, name in ((a, "a"), (b, "b"))]
    sizes = [len(group) for group in groups]
    if min(sizes) < 2:
        return MeanDifference(difference_reason=f"groups of {sizes[0]} and {sizes[1]}; 2 in each are needed")
    if len(np.unique(np.concatenate(groups))) == 1:
        return MeanDifference(difference_reason="all values are equal")

    def difference(a, b, axis):
        return a.mean(axis) - b.mean(axis)

    how = {"vectorized": True, "batch": _batch(sum(sizes))}
    interval = stats.bootstrap(
        groups, difference, n_resamples=resamples, confidence_level=confidence, method="percentile",
        rng=np.random.default_rng(seed), **how,
    ).confidence_interval  # fmt: skip
    test = stats.permutation_test(groups, difference, n_resamples=permutations, rng=np.random.default_rng(seed), **how)
    by_chance = _with_floor(test.pvalue, permutations, math.comb(sum(sizes), sizes[0]))
    return MeanDifference(float(test.statistic), float(interval.low), float(interval.high), *by_chance)


def partial_difference(values, first, controls, resamples=2000, permutations=9999, confidence=0.95, seed=0):
    """Mean of the items in `first` less that of the others, the ranks of controls held constant.

    The coefficient of belonging to `first` in a linear regression of values on it and on the controls' ranks, with a
    bootstrap interval, items drawn within each group, and a permutation p.

    Parameters: values (n,), real. first (n,), bool. controls: list of c vectors (n,). resamples, permutations,
        confidence: as in `relate`.
    Returns: MeanDifference, in the unit of the values. Without controls: that of `difference_of_means`, with other
        draws. nan, with a reason, if a group has fewer than 2 items, all values are equal, n < c + 3, or the controls
        explain all of the values or of which group an item is in.
    Raises: ValueError if lengths differ or a value is not finite (the first is named).
    Source: analysis of covariance, Fisher 1932; `partial_permutation_p` for p.
    """
    check_resampling(resamples, confidence)
    values, first = _paired(values, np.asarray(first, dtype=bool), "values", "first")
    columns = [_paired(values, control, "values", f"control {i}")[1] for i, control in enumerate(controls)]
    n, sizes = len(values), [int(first.sum()), int(len(values) - first.sum())]
    if min(sizes) < 2:
        return MeanDifference(difference_reason=f"groups of {sizes[0]} and {sizes[1]}; 2 in each are needed")
    if values.min() == values.max():
        return MeanDifference(difference_reason="all values are equal")
    if n < len(columns) + 3:
        return MeanDifference(difference_reason=f"{n} items for {len(columns)} controls")
    design = np.column_stack(
        [first - first.mean(), values - values.mean(), np.ones(n), rank_basis(columns, n) * np.sqrt(n)]
    )
    products = (design[:, :, None] * design[:, None, :]).reshape(n, -1)

    def coefficient(counts):
        rest, defined = _left_over((counts @ products).reshape(len(counts), design.shape[1], design.shape[1]))
        return np.where(defined, rest[:, 0, 1], np.nan) / np.where(defined, rest[:, 0, 0], 1)

    found = coefficient(np.ones((1, n)))[0]
    if np.isnan(found):
        return MeanDifference(difference_reason="the controls explain all of the values or of the groups")
    sides, rng, drawn = [np.flatnonzero(first), np.flatnonzero(first == 0)], np.random.default_rng(seed), []
    for start in range(0, resamples, _batch(n)):
        counts = np.zeros((min(_batch(n), resamples - start), n))
        rows = np.arange(len(counts))[:, None] * n
        for side in sides:
            places = side[rng.integers(0, len(side), (len(counts), len(side)))]
            counts += np.bincount((places + rows).ravel(), minlength=counts.size).reshape(counts.shape)
        drawn.append(coefficient(counts))
    interval = percentile_interval(found, np.concatenate(drawn), confidence)
    return MeanDifference(*interval, *partial_permutation_p(values, first, columns, permutations, seed))


def quarters(loss):
    """The quarter of the items with the highest and that with the lowest loss.

    Parameters: loss (n,), real, n >= 4.
    Returns: two (n // 4,) index arrays, highest and lowest, without an item in common; of equal losses, the first items
        count as lower.
    Raises: ValueError if there are fewer than 4 items, or a value is not finite (the first is named).
    """
    loss = checked_vector(loss, "loss")
    size = len(loss) // 4
    if size == 0:
        raise ValueError(f"there are {len(loss)} items; wanted at least 4, to have quarters")
    order = np.argsort(loss, kind="stable")
    return order[-size:], order[:size]


def adjusted_p(p):
    """p-values of one family of tests -> p-values at which the false discovery rate is kept (Benjamini-Hochberg).

    Parameters: p, any number of values in [0, 1]; nan: a test that could not be made, which is not in the family.
    Returns: (n,) float64, not below p; nan where p is.
    Raises: ValueError if a value is outside [0, 1].
    Source: Benjamini and Hochberg 1995; scipy.stats.false_discovery_control.
    """
    p = np.asarray(p, dtype=np.float64)
    adjusted, made = np.full(p.shape, np.nan), ~np.isnan(p)
    if made.any():
        adjusted[made] = stats.false_discovery_control(p[made])
    return adjusted


def _paired(x, y, name_x, name_y):
    x, y = (checked_vector(side, name) if np.size(side) else np.empty(0) for side, name in ((x, name_x), (y, name_y)))
    if len(x) != len(y):
        raise ValueError(f"{name_x} has {len(x)} values and {name_y} {len(y)}; entry i must be the same item in both")
    return x, y


def _undefined(sides):
    """Why these columns have no correlation; "" if they have."""
    n = min(len(side) for side in sides.values())
    if n < 3:
        return f"{n} items; 3 are needed"
    constant = [name for name, side in sides.items() if side.min() == side.max()]
    return f"{' and '.join(constant)} {'is' if len(constant) == 1 else 'are'} constant" if constant else ""


def _batch(n):
    """How many resamples of n items to hold at a time."""
    return max(1, DRAWS_AT_ONCE // n)
