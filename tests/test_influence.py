"""Intervals of measures of neighbours: by hand, their coverage in a small simulation and in the shipped table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from toy_store import embeddings, write_store

from lossmap.errors import LossmapError
from lossmap.measures.correlation import neighbour_spearman, spearman
from lossmap.measures.halves import half_sample_errors, half_sample_interval
from lossmap.measures.influence import PerItem
from lossmap.measures.neighbours import rank_neighbours
from lossmap.measures.overlap import ranking_overlap
from lossmap.measures.retrieval import recall_at
from lossmap.measures.simulation import coverage, finite_population, gaussian_channel, intervals_of
from lossmap.study.steps import simulate_coverage

ROOT = Path(__file__).parents[1]
rng = np.random.default_rng(0)


def test_independent_values_have_students_interval():
    values = rng.normal(3, 2, 50)
    mean, low, high = PerItem(values, values - values.mean()).interval(0.9)
    theirs = stats.t.interval(0.9, 49, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose((mean, low, high), (values.mean(), *theirs))
    assert PerItem(values, values - values.mean()).interval(0.9, bounds=(0, mean + 0.01)).high == mean + 0.01
    assert PerItem(np.array([2.0]), np.zeros(1)).interval() == (2, 2, 2)


def test_a_share_has_wilsons_interval():
    hits = np.repeat([1.0, 0.0], [27, 3])
    theirs = stats.binomtest(27, 30).proportion_ci(method="wilson")
    centred = (hits - hits.mean()) * np.sqrt(29 / 30)  # whose variance is p (1 - p), as the binomial's
    np.testing.assert_allclose(PerItem(hits, centred).share_interval(), (0.9, theirs.low, theirs.high))
    everything = PerItem(np.ones(30), np.zeros(30)).share_interval()
    assert everything.high == everything.mean == 1
    assert everything.low == pytest.approx(stats.binomtest(30, 30).proportion_ci(method="wilson").low)


def test_a_difference_is_of_the_same_items():
    a, b = (rank_neighbours(rng.normal(size=(60, 3)), 5) for _ in range(2))
    one = ranking_overlap(a, b, 5)
    assert (one - one).interval() == (0, 0, 0)
    labels = rng.integers(0, 4, 60)
    before, after = recall_at(a, labels, 1), recall_at(b, labels, 1)
    change = after - before
    assert change.values.tolist() == (after.values - before.values).tolist()
    np.testing.assert_array_equal(change.parts.toarray(), (after.parts - before.parts).toarray())
    assert (change * 100).error == pytest.approx(100 * change.error)


def test_what_neighbours_add_is_counted_for_both_by_hand():
    parts = sparse.csr_array([[0, 0.5, 0.25], [0.5, 0, 0], [0, 0, 0]])
    values = np.array([0.75, 0.5, 0.0])
    influence = np.array([1 / 3, 1 / 12, -5 / 12]) + parts.sum(axis=0) - 1.25 / 3
    squares = ((influence - influence.mean()) ** 2).sum()
    assert PerItem(values, influence, parts).error == pytest.approx(np.sqrt(squares / 6))
    shared = PerItem(values, influence, parts, 0.5)
    twice = (0.5**2 + 0.25**2 + 0.5**2) + 2 * 0.5 * 0.5
    assert shared.error == pytest.approx(np.sqrt(max(squares - twice / 2, 7 / 24) / 6))


def test_a_hit_by_one_neighbour_alone_is_that_neighbours():
    lists = rank_neighbours(np.array([[0.0], [1.0], [2.5], [4.5]]), 1)  # nearest: 1, 0, 1, 2
    found = recall_at(lists, [0, 0, 0, 1], 1)
    assert found.values.tolist() == [1, 1, 1, 0]
    assert found.parts.toarray().tolist() == [[0, 0.25, 0, 0], [0.25, 0, 0, 0], [0, 0.25, 0, 0], [0, 0, -0.75, 0]]


def test_correlation_is_spearmans_and_says_why_it_is_not_there():
    a, b = (rank_neighbours(rng.normal(size=(80, 3)), 5) for _ in range(2))
    hits, overlap = recall_at(a, rng.integers(0, 4, 80), 5), ranking_overlap(a, b, 5, parts=True)
    found = neighbour_spearman(hits, overlap)
    assert found.rho == pytest.approx(spearman(hits.values, overlap.values).rho)
    assert found.low < found.rho < found.high
    assert found.p > 0.01
    assert neighbour_spearman(hits, PerItem(np.ones(80), np.zeros(80))).reason == "y is constant"
    assert neighbour_spearman(hits, ranking_overlap(a, b, 5)).reason == "too many ties for an interval"


def test_halves_give_the_standard_error_of_a_mean():
    values = rng.normal(size=400)
    errors = half_sample_errors(lambda rows: np.array([values[rows].mean(), np.nan]), 400)
    assert errors[0] == pytest.approx(stats.sem(values), rel=0.4)  # 24 halves know it to 15%
    assert np.isnan(errors[1])
    assert half_sample_interval(0.5, 0.1, 0.95, bounds=(0, 0.6)) == pytest.approx(
        (0.5, 0.5 - 2.0687 * 0.1, 0.6), abs=1e-4
    )
    with pytest.raises(ValueError, match="n is 19; wanted at least 20"):
        half_sample_errors(lambda rows: np.zeros(1), 19)


def test_coverage_by_hand():
    found = coverage([(1.0, 0.5, 1.5), (2.0, 1.9, 2.1), (3.0, 1.0, 5.0), (np.nan, 0, 1)])
    assert found["value"] == 2
    assert found["coverage"] == pytest.approx(2 / 3)
    assert found["samples"] == 3
    assert coverage([(1.0, 0.0, 2.0), (2.5, 1.4, 4.0)], part=0.75)["coverage"] == 0.0  # half as long


def test_intervals_of_neighbours_cover_and_are_not_twice_as_wide_as_they_must_be():
    found = {}
    for i in range(40):
        sample = gaussian_channel(100, np.random.default_rng(i))
        for key, interval in intervals_of(sample, [10], i, margins=False).items():
            found.setdefault(key, []).append(interval)
    for key, values in found.items():
        row = coverage(values)
        assert row["coverage"] > 0.84, key  # 95% less 3 standard errors
        assert 0.7 < row["wider"] < 2, key


def test_the_command_writes_the_same_table_again(tmp_path):
    pre, post = embeddings(90)
    pre[80:] = pre[:10]  # copies, of which the population holds one
    index = write_store(tmp_path / "m.json", pre, post)
    for name in "ab":
        simulate_coverage.run(table=tmp_path / name, embeddings=[index], sizes=[40], samples=[2])
    table = pd.read_csv(tmp_path / "a")
    assert table["population"].unique().tolist() == ["gaussian", "clusters", "images"]
    assert (table["samples"].isin([0, 2])).all()
    assert set(table["k"].dropna()) == {1, 5, 10}
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(LossmapError, match="sizes: 80 of 80 images are no sample"):
        simulate_coverage.run(table=tmp_path / "c", embeddings=[index], sizes=[80], samples=[1])


def test_a_finite_population_is_sampled_without_replacement():
    x = rng.normal(size=(50, 8))
    sample = finite_population(x, x, x)(49, rng)
    assert len(np.unique(sample.before, axis=0)) == 49


def test_no_interval_of_the_shipped_table_covers_less_than_it_may():
    """Not below 93% by more than two standard errors of so many samples; from 1,000 samples on, not below 93%."""
    table = pd.read_csv(ROOT / "docs/coverage.csv")
    places = table[["population", "n"]].drop_duplicates()
    assert {*places.itertuples(index=False, name=None)} == {
        (name, n) for name in ("gaussian", "clusters", "images") for n in (200, 400, 2000)
    }
    error = np.sqrt(0.93 * 0.07 / table["samples"])
    low = table[table["coverage"] < np.where(table["samples"] >= 1000, 0.93, 0.93 - 2 * error)]
    assert low.empty, low.to_string()
