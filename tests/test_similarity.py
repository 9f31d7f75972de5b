"""Similarity: rotation and identity, chance, agreement with scikit-learn, SciPy and plain formulas, every error."""

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr
from sklearn.manifold import trustworthiness as sklearn_trustworthiness

from lossmap.measures.margins import neighbour_margins
from lossmap.measures.neighbours import nearest_neighbours
from lossmap.measures.similarity import (
    chance_trustworthiness,
    debiased_cka,
    order_agreement,
    trustworthiness,
)

rng = np.random.default_rng(7)
X = rng.normal(size=(200, 12)) * np.linspace(0.2, 2, 12) + 3
Y = X[:, :5] + 0.5 * rng.normal(size=(200, 5))
Q, _ = np.linalg.qr(rng.normal(size=(12, 12)))


def ranks_of(before, after, k):
    """Ranks before of the neighbours after, and the reverse."""
    lists = [nearest_neighbours(x, k, "cosine") for x in (before, after)]
    found = neighbour_margins(before, after, *lists, [k])
    return found.ranks_before, found.ranks_after


def slow_hsic(x, y):
    """Song et al. 2012, with n x n kernels."""
    n = len(x)
    k, el = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(el, 0)
    total = np.trace(k @ el) + k.sum() * el.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ el).sum()
    return total / (n * (n - 3))


def slow_cka(x, y):
    return slow_hsic(x, y) / np.sqrt(slow_hsic(x, x) * slow_hsic(y, y))


@pytest.mark.parametrize("after", [X, X @ Q, 5 * X @ Q, np.hstack([X, np.zeros((200, 2))])])
def test_rotation_and_scale_leave_full_similarity(after):
    assert debiased_cka(X, after, 50).mean == pytest.approx(1, abs=1e-5)
    assert debiased_cka(X, after - 100, 50).mean == pytest.approx(1, abs=1e-5)
    for ranks in ranks_of(X, after, 20):
        np.testing.assert_array_equal(ranks, np.tile(np.arange(1, 21), (200, 1)))
        assert (trustworthiness(ranks, 200) == 1).all()
        assert all((agreement == 1).all() for agreement in order_agreement(ranks))


@pytest.mark.parametrize("other", [Y, rng.normal(size=(200, 300)), X**3])
def test_cka_is_the_n_by_n_formula(other):
    assert debiased_cka(X, other, 50).mean == pytest.approx(slow_cka(X, other), abs=1e-6)


def test_unrelated_embeddings_have_cka_zero_where_the_biased_one_says_otherwise():
    found = debiased_cka(rng.normal(size=(100, 400)), rng.normal(size=(100, 400)))
    assert found.low < 0 < found.high
    assert abs(found.mean) < 0.05


def test_the_ckas_interval_is_as_wide_as_new_samples_are_apart():
    mixing = rng.normal(size=(6, 4))
    pairs = [(x, x @ mixing + rng.normal(size=(150, 4))) for x in rng.normal(size=(150, 150, 6))]
    values = np.array([debiased_cka(*pair, 1).mean for pair in pairs])
    widths = [np.ptp(debiased_cka(*pair, 500)[1:]) for pair in pairs[:10]]
    assert np.mean(widths) / (3.92 * values.std()) == pytest.approx(1, abs=0.2)


def test_cka_of_a_constant_side_is_undefined():
    assert np.isnan(debiased_cka(X, np.ones((200, 2)), 10)).all()


@pytest.mark.parametrize("k", [1, 10, 60])
def test_trustworthiness_is_scikit_learns(k):
    before, after = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (X, Y))
    ours = [trustworthiness(ranks, 200).mean() for ranks in ranks_of(X, Y, k)]
    theirs = [sklearn_trustworthiness(*pair, n_neighbors=k) for pair in ((before, after), (after, before))]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_unrelated_embeddings_score_chance():
    ranks_before, ranks_after = ranks_of(X, rng.normal(size=(200, 3)), 15)
    trust = trustworthiness(ranks_before, 200)
    assert abs(trust.mean() - chance_trustworthiness(200, 15)) < 5 * trust.std() / np.sqrt(200)
    for agreement in order_agreement(ranks_after):
        assert abs(agreement.mean()) < 5 * agreement.std() / np.sqrt(200)


def test_order_agreement_is_scipys():
    _, ranks = ranks_of(X, Y, 30)
    tau, rho = order_agreement(ranks)
    for row in range(0, 200, 17):
        assert tau[row] == pytest.approx(kendalltau(np.arange(30), ranks[row]).statistic, abs=1e-12)
        assert rho[row] == pytest.approx(spearmanr(np.arange(30), ranks[row]).statistic, abs=1e-12)
    tau, rho = order_agreement(np.array([[9, 5, 2], [1, 1, 1], [1, 3, 2]]))
    assert tau.tolist() == [-1, 1, pytest.approx(1 / 3)]
    assert rho.tolist() == [-1, 1, 0.5]


def test_faults_are_named():
    with pytest.raises(ValueError, match="before has 200 rows and after 199"):
        debiased_cka(X, X[1:])
    with pytest.raises(ValueError, match="before has 3 rows; wanted at least 4"):
        debiased_cka(X[:3], X[:3])
    with pytest.raises(ValueError, match="after: 1 of 200 rows are not finite; the first is row 7"):
        debiased_cka(X, np.where(np.arange(200)[:, None] == 7, np.nan, X))
    with pytest.raises(ValueError, match="k is 100; trustworthiness wants less than half of the 200 items"):
        trustworthiness(np.ones((200, 100)), 200)
    with pytest.raises(ValueError, match="k is 1; wanted at least 2"):
        order_agreement(np.ones((4, 1)))
