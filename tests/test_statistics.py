"""Bootstrap intervals and rank correlation: theory, coverage, SciPy, every error."""

import warnings

import numpy as np
import pytest
from scipy import stats

from lossmap.measures.correlation import spearman
from lossmap.measures.statistics import bootstrap_mean

rng = np.random.default_rng(0)
X = rng.normal(size=150)
Y = X + rng.normal(size=150)
SCORES = np.round(np.clip(0.5 + 0.2 * X + 0.3 * rng.normal(size=150), 0, 1), 1)  # many ties


def test_scipys_bootstrap_gives_the_same_interval():
    values = rng.exponential(size=300)
    mean, low, high = bootstrap_mean(values, resamples=20_000, seed=1)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    monte_carlo = 0.05 * values.std() / np.sqrt(300)  # about three standard errors of such a quantile
    assert mean == values.mean()
    assert low == pytest.approx(theirs.low, abs=monte_carlo)
    assert high == pytest.approx(theirs.high, abs=monte_carlo)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_interval_is_the_normal_one_for_many_items(confidence):
    values = rng.normal(3, 2, size=5000)
    mean, low, high = bootstrap_mean(values, confidence=confidence)
    half = stats.norm.ppf((1 + confidence) / 2) * values.std() / np.sqrt(5000)
    np.testing.assert_allclose([low - mean, high - mean], [-half, half], rtol=0.12)


def test_the_interval_covers_as_often_as_it_says():
    samples = np.random.default_rng(4).normal(7, 1, size=(600, 60))
    intervals = [bootstrap_mean(sample, 400, 0.9, seed=i) for i, sample in enumerate(samples)]
    covered = np.mean([interval.low <= 7 <= interval.high for interval in intervals])
    assert abs(covered - 0.9) < 0.05  # 4 standard errors, and the percentile interval is slightly short


def test_equal_values_leave_no_interval():
    assert bootstrap_mean([2.5] * 9) == (2.5, 2.5, 2.5)
    assert bootstrap_mean([4]) == (4, 4, 4)


def test_the_seed_decides():
    assert bootstrap_mean(X, seed=3) == bootstrap_mean(X, seed=3)
    assert bootstrap_mean(X, seed=[3, 1]) != bootstrap_mean(X, seed=3)
    assert spearman(X, Y, seed=3) == spearman(X, Y, seed=3)
    assert spearman(X, Y, seed=3) != spearman(X, Y, seed=4)


def test_many_items_are_resampled_in_batches(monkeypatch):
    monkeypatch.setattr("lossmap.measures.statistics.DRAWS_AT_ONCE", 1000)
    mean, low, high = bootstrap_mean(X, 1999)
    assert low < mean < high
    assert spearman(X, Y, 1999).low < spearman(X, Y, 1999).rho


@pytest.mark.parametrize("y", [Y, SCORES, (Y > 0).astype(int)])
def test_scipys_rho_and_p(y):
    ours, theirs = spearman(X, y), stats.spearmanr(X, y)
    assert ours.rho == pytest.approx(theirs.statistic, abs=1e-14)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (ours.n, ours.reason) == (150, "")


@pytest.mark.parametrize("y", [Y, SCORES])
def test_each_resample_is_ranked_anew(y):
    ours = spearman(X, y, resamples=300, seed=5)
    draws = np.random.default_rng(5).integers(0, 150, (300, 150), dtype=np.int32)
    slow = [stats.spearmanr(X[draw], y[draw]).statistic for draw in draws]
    np.testing.assert_allclose([ours.low, ours.high], np.quantile(slow, [0.025, 0.975]), atol=1e-12)


def test_an_order_kept_is_one_and_an_order_turned_is_minus_one():
    kept, turned = spearman(X, np.exp(X)), spearman(X, -(X**3))
    np.testing.assert_allclose([kept.rho, kept.low, kept.high], 1)
    np.testing.assert_allclose([turned.rho, turned.low, turned.high], -1)


def test_rho_does_not_depend_on_scale_or_side():
    assert spearman(X, Y) == spearman(1000 * X + 5, np.exp(Y))
    assert spearman(X, Y).rho == pytest.approx(spearman(Y, X).rho, abs=1e-15)


def test_the_interval_of_rho_covers_zero_for_unrelated_sides():
    draw = np.random.default_rng(6)
    intervals = [spearman(draw.normal(size=50), draw.normal(size=50), 300, 0.9, seed=i) for i in range(300)]
    assert abs(np.mean([interval.low <= 0 <= interval.high for interval in intervals]) - 0.9) < 0.08


def test_a_constant_side_has_no_rho_and_says_why():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, both = spearman(X, np.full(150, 0.1)), spearman(np.zeros(150), np.ones(150))
        rare = spearman([0, 0, 1], [1, 2, 3], resamples=500)  # some resamples are constant
        nowhere = spearman([0, 0, 1], [1, 2, 3], resamples=1, seed=8)
    assert np.isnan([one.rho, one.low, one.high, one.p]).all()
    assert (one.reason, both.reason) == ("y is constant", "x and y are constant")
    assert -1 <= rare.low <= rare.high <= 1
    assert nowhere.rho == rare.rho


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "values: is empty"),
        ([[1.0]], {}, r"values: has shape \(1, 1\); wanted 1 dimension"),
        (["a"], {}, "values: holds <U1; wanted real numbers"),
        ([1, np.nan, np.inf], {}, "values: 2 of 3 are not finite; the first is entry 1"),
        ([1, 2], {"resamples": 0}, "resamples is 0; wanted at least 1"),
        ([1, 2], {"confidence": 95}, "confidence is 95; wanted a number between 0 and 1"),
    ],
)
def test_faulty_values_are_named(values, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values, **options)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (X, Y[1:], {}, "x has 150 values and y has 149; entry i must be the same item"),
        ([1, 2], [3, 4], {}, "there are 2 pairs; wanted at least 3"),
        (X, np.append(Y[1:], np.nan), {}, "y: 1 of 150 are not finite; the first is entry 149"),
        (X, Y, {"resamples": 0}, "resamples is 0"),
        (X, Y, {"confidence": 1}, "confidence is 1;"),
    ],
)
def test_faulty_pairs_are_named(x, y, options, message):
    with pytest.raises(ValueError, match=message):
        spearman(x, y, **options)
