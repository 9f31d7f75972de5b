"""Moments of rows that come block by block: NumPy's values, whatever the blocks; every error."""

import numpy as np
import pytest
import torch

from lossmap.measures import moments
from lossmap.measures.moments import RunningCovariance, RunningMoments

rng = np.random.default_rng(0)
X = torch.from_numpy(rng.normal(size=(500, 4)) @ rng.normal(size=(4, 5)) * [1e-4, 1, 1e3, 1, 1] + [0, 0, 1e6, -7, 3])


def fill(running, rows, cuts=()):
    for block in np.split(rows, list(cuts)):
        running.update(torch.as_tensor(block))
    return running


def test_they_are_numpys():
    running = fill(RunningMoments(5), X, [1, 17, 300])
    np.testing.assert_allclose(running.mean, X.numpy().mean(0), rtol=1e-13)
    np.testing.assert_allclose(running.std, X.numpy().std(0), rtol=1e-12)
    assert running.count == 500
    assert running.mean.dtype == running.std.dtype == torch.float64


def test_order_and_size_of_blocks_play_no_role(monkeypatch):
    one = fill(RunningMoments(5), X)
    monkeypatch.setattr(moments, "ROWS_AT_ONCE", 37)
    other = fill(RunningMoments(5), X.flip(0), [3, 250, 251])
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-12)
    np.testing.assert_allclose(one.std, other.std, rtol=1e-12)


def test_a_shift_moves_the_mean_and_nothing_else():
    shifted = fill(RunningMoments(5), X + 1e9, [100])
    np.testing.assert_allclose(shifted.std, fill(RunningMoments(5), X).std, rtol=2e-3)  # 1e-4 beside 1e9: 3 digits left
    np.testing.assert_allclose(shifted.std[1:], fill(RunningMoments(5), X).std[1:], rtol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_constant_feature_deviates_by_exactly_nothing(dtype):
    rows = torch.full((1001, 3), 0.1, dtype=dtype)
    rows[:, 1] = torch.arange(1001)
    running = fill(RunningMoments(3), rows, [10, 999])
    assert (running.std == 0).tolist() == [True, False, True]
    assert running.mean[0] == rows[0, 0].double()
    assert running.std[1] == pytest.approx(np.sqrt((1001**2 - 1) / 12), rel=1e-12)


def test_by_hand():
    running = fill(RunningMoments(1), torch.tensor([[1.0], [2], [3], [6]]), [1])
    assert running.mean.item() == 3
    assert running.std.item() == pytest.approx(np.sqrt(3.5), abs=1e-15)


def test_covariance_is_numpys_whatever_the_blocks(monkeypatch):
    standard = (X - X.mean(0)) / X.std(0)
    monkeypatch.setattr(moments, "ROWS_AT_ONCE", 64)
    monkeypatch.setattr(moments, "COLUMNS_AT_ONCE", 2)
    running = fill(RunningCovariance(5), standard + 0.5, [3, 400])
    np.testing.assert_allclose(running.covariance, np.cov(standard.numpy().T, bias=True), atol=1e-12)
    np.testing.assert_allclose(running.mean, 0.5, atol=1e-12)
    single = fill(RunningCovariance(5), (standard + 0.5).float(), [7])
    np.testing.assert_allclose(single.covariance, running.covariance, atol=1e-5)
    assert single.covariance.dtype == torch.float64


def test_products_about_a_centre_by_hand():
    running = fill(RunningCovariance(2), torch.tensor([[1.0, 2], [3, 5]]))
    # (0, 1) (0, 1)^T + (2, 4) (2, 4)^T
    assert running.about(torch.tensor([1.0, 1], dtype=torch.float64)).tolist() == [[4, 8], [8, 17]]
    assert running.mean_square == (1 + 4 + 9 + 25) / 4


@pytest.mark.parametrize("running", [RunningMoments, RunningCovariance])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named(running, value, monkeypatch):
    monkeypatch.setattr(moments, "ROWS_AT_ONCE", 100)
    rows = X.clone()
    rows[[317, 350], 2] = value
    with pytest.raises(ValueError, match="rows: 2 of a block of 100 are not finite; the first is row 317"):
        fill(running(5), rows, [50, 200])


@pytest.mark.parametrize("running", [RunningMoments, RunningCovariance])
@pytest.mark.parametrize("rows", [X[0], X[:, :4], X.long()])
def test_rows_of_another_shape_or_kind_are_refused(running, rows):
    with pytest.raises(ValueError, match=r"rows: torch\.\w+ of shape .*; wanted floating point, \(N, 5\)"):
        running(5).update(rows)


@pytest.mark.parametrize(
    ("running", "names"),
    [(RunningMoments, ["mean", "std"]), (RunningCovariance, ["mean", "mean_square", "covariance"])],
)
def test_there_is_no_mean_of_nothing(running, names):
    running = running(5)
    running.update(X[:0])
    for name in names:
        with pytest.raises(ValueError, match="no rows were given yet"):
            getattr(running, name)
