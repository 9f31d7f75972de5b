"""Random projections: the formula, promises that they keep, intervals, and where nothing is guaranteed."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import ks_2samp

from lossmap.measures.margins import neighbour_margins
from lossmap.measures.neighbours import nearest_neighbours
from lossmap.measures.overlap import list_overlap
from lossmap.measures.random_projection import (
    dimension_curve,
    dimension_needed,
    distance_margin,
    draws,
    kept_by_projection,
    project,
    quantile_curve,
    sampling_margin,
)
from lossmap.measures.statistics import bootstrap_mean

rng = np.random.default_rng(13)
N = 240
X = rng.normal(size=(40, 30))[np.arange(N) % 40] + 0.25 * rng.normal(size=(N, 30))  # 40 clusters of 6
UNIT = X / np.linalg.norm(X, axis=1, keepdims=True)
LISTS = nearest_neighbours(X, 20, "cosine")
FOUND = neighbour_margins(X, X, LISTS, LISTS, [5, 10])


def test_the_formula_of_dasgupta_and_gupta():
    assert dimension_needed(1000, 0.5) == np.ceil(4 * np.log(1000) / (0.25 / 2 - 0.125 / 3))
    assert dimension_needed(400, [0.1, 0.0, -1]).tolist() == [5136, np.inf, np.inf]


def test_all_distances_are_kept_at_the_dimension_of_the_formula():
    """Each pair fails with probability at most 2 / n^2, so that fewer than one does on average."""
    kept = project(X, int(dimension_needed(N, 0.3)), np.random.default_rng(0))
    ratios = pdist(kept, "sqeuclidean") / pdist(X, "sqeuclidean")
    assert ((ratios > 0.7) & (ratios < 1.3)).all()


def test_a_margin_is_the_distortion_that_would_close_it():
    inside, outside = rng.uniform(0.2, 1, 50), rng.uniform(-1, 0.2, 50)
    e = distance_margin(inside, outside)
    np.testing.assert_allclose((1 + e) * (2 - 2 * inside), (1 - e) * (2 - 2 * outside))
    assert distance_margin([0.5, 1.0], [0.5, 1.0]).tolist() == [0, 0]


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("k", [3, 5, 10])
def test_the_dimension_that_is_enough_keeps_the_promised_share(quantile, k):
    m = dimension_curve(FOUND.nearest, quantile).value[k - 1]
    kept = kept_by_projection(UNIT, LISTS, [k], m, np.arange(N), np.random.default_rng(k))
    assert (kept == 1).mean() >= (1 - quantile) * (1 - 2 / N)


def test_clear_margins_need_few_dimensions():
    """At k = 5, the other members of a cluster, half of the images need a few hundred; elsewhere it is near-ties."""
    value = dimension_curve(FOUND.nearest, 0.5).value
    assert value[4] < 500
    assert (value[[0, 1, 2, 3, 5, 6, 7]] > 10 * value[4]).all()


def test_a_quantiles_interval_is_that_of_many_resamples():
    values = rng.exponential(size=(150, 2))
    for quantile in (0.1, 0.5, 0.9):
        found = quantile_curve(values, quantile)
        sample = values[np.random.default_rng(0).integers(0, 150, (20000, 150)), 1]
        resampled = np.quantile(sample, quantile, axis=1, method="inverted_cdf")
        assert found.value[1] == np.quantile(values[:, 1], quantile, method="inverted_cdf")
        ordered = np.sort(values[:, 1])
        for ours, theirs in zip(found[1:], np.quantile(resampled, [0.025, 0.975], method="inverted_cdf"), strict=True):
            assert abs(np.searchsorted(ordered, ours[1]) - np.searchsorted(ordered, theirs)) <= 1


def test_a_curve_stands_within_its_band():
    curve = dimension_curve(FOUND.nearest, 0.5)
    assert curve.value.shape == (10,)
    assert (curve.low <= curve.value).all()
    assert (curve.value <= curve.high).all()


def test_ties_need_infinitely_many_dimensions():
    twins = np.vstack([X, X, X])
    lists = nearest_neighbours(twins, 4, "cosine")
    curve = dimension_curve(neighbour_margins(twins, twins, lists, lists, [4]).nearest, 0.5)
    assert curve.value[0] == np.inf  # the two twins of an image are equally near
    assert curve.value[1] < np.inf
    assert (kept_by_projection(UNIT, LISTS, [3], np.inf, np.arange(7), rng) == 1).all()


def test_projected_distances_have_the_same_law_on_both_sides_of_the_width():
    """m = d is drawn as a Gaussian matrix and m = d + 1 by its Gram matrix."""
    pairs = np.stack([X[0] - X[1], X[2] - X[3]])
    draws = [np.array([(project(pairs, m, rng) ** 2).sum(1) for _ in range(3000)]) for m in (30, 31)]
    for column in range(2):
        assert ks_2samp(draws[0][:, column], draws[1][:, column] * 1.0).pvalue > 0.001
    exact = np.array([(pairs @ rng.normal(size=(30, 31)) / np.sqrt(31)) for _ in range(3000)])
    assert (
        ks_2samp((exact[:, 0] * exact[:, 1]).sum(1), [np.prod(project(pairs, 31, rng), 0).sum() for _ in range(3000)])[
            1
        ]
        > 0.001
    )
    mean = bootstrap_mean(draws[1][:, 0] / (pairs[0] ** 2).sum(), 200, 0.999)
    assert mean.low < 1 < mean.high


def test_more_dimensions_keep_more_and_queries_are_rows_of_all():
    ks = [10, 4]
    kept = [kept_by_projection(UNIT, LISTS, ks, m, np.arange(N), np.random.default_rng(1)) for m in (2, 8, 30, 10**9)]
    means = [values[:, 0].mean() for values in kept]
    assert means == sorted(means)
    assert means[-1] == 1
    projected = project(UNIT, 8, np.random.default_rng(1))
    for j, k in enumerate(ks):
        np.testing.assert_allclose(kept[1][:, j], list_overlap(LISTS, nearest_neighbours(projected, 10), k))
    some = kept_by_projection(UNIT, LISTS, ks, 8, np.array([5, 17]), np.random.default_rng(1))
    np.testing.assert_array_equal(some, kept[1][[5, 17]])


def test_few_dimensions_are_drawn_often_and_many_once():
    assert [draws(m) for m in (2, 8, 32, 64, 100, 256, 4096)] == [8, 8, 8, 4, 3, 1, 1]


def test_nothing_is_guaranteed_for_the_population_of_few_images():
    margin = FOUND.inside - FOUND.outside
    guaranteed = sampling_margin(margin, FOUND.density, N)
    eta = np.sqrt(np.log(2 * N / 0.05) / (2 * N)) / FOUND.density
    np.testing.assert_allclose(guaranteed, margin - 2 * eta)
    assert (guaranteed < 0).any()
    assert sampling_margin(np.array([[0.5]]), np.array([[100.0]]), 10**5)[0, 0] == pytest.approx(0.4998, abs=1e-3)


def test_faults_are_named():
    with pytest.raises(ValueError, match="n is 1; wanted at least 2"):
        dimension_needed(1, 0.5)
    with pytest.raises(ValueError, match="distortion is 1.0; wanted less than 1"):
        dimension_needed(10, [0.5, 1.0])
    with pytest.raises(ValueError, match="quantile is 1; wanted a number between 0 and 1"):
        quantile_curve(np.ones((3, 1)), 1)
    with pytest.raises(ValueError, match="confidence is 2"):
        quantile_curve(np.ones((3, 1)), 0.5, 2)
    with pytest.raises(ValueError, match="delta is 0; wanted"):
        sampling_margin(np.ones(1), np.ones(1), 10, 0)
    with pytest.raises(ValueError, match="k is 240; wanted 1 to 239"):
        kept_by_projection(UNIT, LISTS, [240], 5, np.arange(3), rng)
