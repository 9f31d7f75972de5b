"""Dimensions: known ones, what changes nothing, intervals that hold, agreement with a plain formula."""

import numpy as np
import pytest

from lossmap.measures.dimension import effective_rank, intrinsic_dimension
from lossmap.measures.neighbours import nearest_neighbours

rng = np.random.default_rng(5)
X = rng.normal(size=(250, 10)) * np.linspace(0.1, 2, 10) + 1
Q, _ = np.linalg.qr(rng.normal(size=(10, 10)))


def twonn(x, **how):
    return intrinsic_dimension(x, nearest_neighbours(x, 2), **how)


def test_equal_variance_in_r_directions_has_rank_r():
    for r in (1, 4, 9):
        x = np.linalg.qr(rng.normal(size=(60, r)) - 0)[0]
        x = np.linalg.qr(x - x.mean(0))[0]
        assert effective_rank(np.pad(x, ((0, 0), (0, 5))), 50).mean == pytest.approx(r, rel=1e-9)


def test_effective_rank_is_the_entropy_of_singular_values():
    for x in (X, X[:7], rng.normal(size=(20, 60))):
        shares = np.linalg.svd(x - x.mean(0), compute_uv=False)[: len(x) - 1]
        shares /= shares.sum()
        assert effective_rank(x, 50).mean == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)


def test_rotation_shift_and_scale_change_no_dimension():
    for measure in (effective_rank, lambda x: twonn(x).interval):
        np.testing.assert_allclose(measure(X), measure(7 * X @ Q - 3), rtol=1e-5)


@pytest.mark.parametrize("d", [1, 2, 4])
def test_a_surface_has_its_own_dimension_in_any_space(d):
    sheet = rng.random((3000, d))
    bent = np.concatenate([np.cos(2 * sheet), np.sin(2 * sheet), sheet], axis=1)
    found = twonn(bent).interval
    assert found.mean == pytest.approx(d, rel=0.08)
    assert found.low < found.mean < found.high


def test_intrinsic_dimension_is_the_plain_formula():
    distances = np.sort(np.linalg.norm(X[:, None] - X[None], axis=2), axis=1)
    wanted = (len(X) - 1) / np.log(distances[:, 2] / distances[:, 1]).sum()
    assert twonn(X).interval.mean == pytest.approx(wanted, rel=1e-10)


def test_twins_are_left_out_and_counted():
    found = twonn(np.vstack([X, X[:20]]))
    assert found.used == 230
    assert 3 < found.interval.mean < 20


def test_equally_near_neighbours_have_no_finite_dimension():
    assert twonn(np.eye(6)).interval.mean == np.inf


def test_an_interval_covers_what_new_samples_give():
    sample = rng.normal(size=(40, 300, 8)) * np.linspace(0.3, 1, 8)
    ranks = np.array([effective_rank(x, 10).mean for x in sample])
    dimensions = np.array([twonn(x).interval.mean for x in sample])
    rank, dimension = effective_rank(sample[0], 1000), twonn(sample[0]).interval
    assert 0.6 < (rank.high - rank.low) / (3.92 * ranks.std()) < 1.7
    assert 0.6 < (dimension.high - dimension.low) / (3.92 * dimensions.std()) < 1.7


def test_embeddings_that_are_all_alike_have_no_rank():
    assert np.isnan(effective_rank(np.ones((5, 3)))).all()


def test_faults_are_named():
    with pytest.raises(ValueError, match="x has 1 row; wanted at least 2"):
        effective_rank(np.ones((1, 3)))
    with pytest.raises(ValueError, match="x: 1 of 250 rows are not finite; the first is row 7"):
        effective_rank(np.where(np.arange(250)[:, None] == 7, np.nan, X))
    with pytest.raises(ValueError, match="resamples is 0"):
        effective_rank(X, 0)
    with pytest.raises(ValueError, match=r"neighbours: has shape \(250, 1\); wanted \(250, at least 2\)"):
        intrinsic_dimension(X, nearest_neighbours(X, 1))
    with pytest.raises(ValueError, match="0 of 5 items differ from their nearest neighbour"):
        twonn(np.ones((5, 3)))
