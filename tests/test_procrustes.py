"""Alignment: what a rotation undoes, what a linear map undoes, what chance leaves; SciPy and scikit-learn agree."""

import numpy as np
import pytest
from scipy.spatial import procrustes
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from lossmap.measures import procrustes as module
from lossmap.measures.procrustes import MAPS, align, first_components, unexplained_shares
from lossmap.measures.resampling import percentile_interval, ratio_interval, resampled_means
from lossmap.measures.statistics import bootstrap_mean

rng = np.random.default_rng(3)
X = rng.normal(size=(300, 12)) * np.linspace(0.2, 3, 12) + 4
Q, _ = np.linalg.qr(rng.normal(size=(12, 12)))


def share(before, after, seed=0):
    found = unexplained_shares(before, after, np.random.default_rng(seed))
    assert set(found) == set(MAPS)
    return {name: errors.sum() / variances.sum() for name, (errors, variances) in found.items()}


@pytest.mark.parametrize("after", [X, X @ Q, X @ Q - 7, X[:, ::-1] * -1, np.hstack([X, np.zeros((300, 9))]) - 1])
def test_what_rotates_reflects_shifts_or_pads_leaves_no_error(after):
    assert align(X, after).errors.max() < 1e-12
    assert share(X, after)["rotation"] < 1e-20


def test_a_scale_is_an_error_for_the_paper_and_none_as_a_share():
    errors = align(X, 3 * X @ Q).errors
    np.testing.assert_allclose(errors, 2 * np.linalg.norm(X - X.mean(0), axis=1))
    assert share(X, 3 * X @ Q)["rotation"] < 1e-20


def test_a_linear_map_is_undone_by_ridge_and_not_by_a_rotation():
    found = share(X, X @ (Q * np.geomspace(0.01, 10, 12)) @ Q.T)
    assert found["ridge"] < 1e-4
    assert min(found["rotation"], found["rotation_standardised"]) > 0.1


def test_features_of_any_unit_are_alike_once_standardised():
    found = share(X, X * np.geomspace(0.01, 10, 12))
    assert found["rotation_standardised"] < 1e-10
    assert found["rotation"] > 0.1


def test_unrelated_embeddings_leave_everything():
    for found in (share(X, rng.normal(size=(300, 20))), share(X, rng.normal(size=(300, 5)))):
        assert all(0.95 < value < 1.1 for value in found.values())
    found = share(X, X @ Q)
    assert found["ridge"] < 1e-4
    assert 0.95 < found["ridge_shuffled"] < 1.1
    assert 0.95 < found["rotation_shuffled"] < 1.1


def test_more_features_than_images_do_not_explain_what_was_not_fitted():
    wide, other = rng.normal(size=(40, 90)), rng.normal(size=(40, 120))
    assert align(wide, other).errors.mean() < 0.7 * np.linalg.norm(wide - wide.mean(0), axis=1).mean()
    assert all(value > 0.9 for value in share(wide, other).values())


def test_with_fewer_images_than_features_rounding_decides_nothing():
    wide, other = rng.normal(size=(40, 90)), rng.normal(size=(40, 90))
    wide[:, :30] += 3 * other[:, :30]
    one, two = share(wide, other), share(wide * (1 + 1e-13 * rng.normal(size=wide.shape)), other)
    assert one == pytest.approx(two, rel=1e-6)


def test_narrower_embeddings_are_padded_and_lose_what_they_lack():
    before = np.linalg.qr(X - X.mean(0))[0] * np.linspace(3, 1, 12)  # uncorrelated features
    found = align(before, before[:, :5] + 2)
    assert found.after.shape == (300, 12)
    np.testing.assert_allclose(found.errors, np.linalg.norm(before[:, 5:], axis=1))


def test_wider_embeddings_are_reduced_by_principal_components():
    after = rng.normal(size=(300, 20)) * np.linspace(1, 3, 20) + X[:, :1]
    scores = PCA(12).fit_transform(after)
    ours = align(X, after)
    np.testing.assert_allclose(np.abs(ours.after), np.abs(scores), atol=1e-9)
    np.testing.assert_allclose(ours.errors, align(X, scores).errors, atol=1e-9)
    assert (ours.errors**2).sum() < ((ours.after - ours.before) ** 2).sum()


def test_the_share_of_images_seen_twice_is_scipys_disparity():
    class Halves:
        def permutation(self, n):
            return np.arange(n)

    after = X @ Q + rng.normal(size=X.shape)
    found = unexplained_shares(np.vstack([X, X]), np.vstack([after, after]), Halves())
    errors, variances = found["rotation"]
    assert errors.sum() / variances.sum() == pytest.approx(procrustes(X, after)[2], rel=1e-5)


@pytest.mark.parametrize("width", [6, 400])
def test_ridge_is_scikit_learns_at_the_penalty_that_it_chose(width, monkeypatch):
    source = rng.normal(size=(150, width))
    source -= source.mean(0)
    target = source @ rng.normal(size=(width, 4)) + rng.normal(size=(150, 4))
    target -= target.mean(0)
    for penalty in module.PENALTIES:
        monkeypatch.setattr(module, "PENALTIES", np.array([penalty]))
        ridge = module._Ridge(source)
        found = ridge.map_to(target)
        wanted = Ridge(penalty * ridge.squares.mean(), fit_intercept=False, solver="svd").fit(source, target).coef_.T
        np.testing.assert_allclose(source @ found, source @ wanted, atol=1e-6)


@pytest.mark.parametrize("n", [300, 151])
def test_every_image_is_scored_once_by_what_was_fitted_on_the_other_half(n):
    after = rng.normal(size=X.shape)[:n]
    order = np.random.default_rng(0).permutation(n)
    halves = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
    for fitted, scored in (halves, halves[::-1]):
        changed, other = X[:n].copy(), after.copy()
        changed[scored[0]] += 100
        other[scored[0]] -= 100
        one = unexplained_shares(X[:n], after, np.random.default_rng(0))
        two = unexplained_shares(changed, other, np.random.default_rng(0))
        assert all(errors.shape == variances.shape == (n,) for errors, variances in one.values())
        for name in ("rotation", "rotation_standardised", "ridge"):
            np.testing.assert_array_equal(one[name][0][scored[1:]], two[name][0][scored[1:]])
            assert one[name][0][scored[0]] != two[name][0][scored[0]]
            assert (one[name][0][fitted] != two[name][0][fitted]).any()  # their map was fitted on what changed


def test_a_constant_feature_is_no_fault():
    after = np.hstack([X, np.full((300, 1), 5.0)])
    assert share(X, after)["ridge"] < 1e-4


def test_first_components_are_those_of_most_variance():
    centred = X - X.mean(0)
    ours = centred @ first_components(centred)
    np.testing.assert_allclose(np.abs(ours), np.abs(PCA(2).fit_transform(X)), atol=1e-9)
    assert first_components(centred[:, :1]).shape == (1, 2)
    assert first_components(centred[:, :1])[:, 1] == 0


def test_faults_are_named():
    with pytest.raises(ValueError, match="before has 300 rows and after 299"):
        align(X, X[1:])
    with pytest.raises(ValueError, match="after: 1 of 300 rows are not finite; the first is row 7"):
        align(X, np.where(np.arange(300)[:, None] == 7, np.nan, X))
    with pytest.raises(ValueError, match="before has 3 rows; wanted at least 4"):
        unexplained_shares(X[:3], X[:3], rng)
    with pytest.raises(ValueError, match="after: all images of the fitting half are alike"):
        unexplained_shares(X, np.ones((300, 3)), rng)


def test_resampled_means_draw_the_images_of_bootstrap_mean():
    values = rng.normal(size=(50, 2))
    found = resampled_means(values, 300, seed=4)
    for column in range(2):
        wanted = bootstrap_mean(values[:, column], 300, seed=4)
        np.testing.assert_allclose(percentile_interval(values[:, column].mean(), found[:, column]), wanted, rtol=1e-12)


def test_a_ratio_has_the_interval_of_its_resamples():
    numerator, denominator = rng.random(80), rng.random(80) + 0.5
    found = ratio_interval(numerator, denominator, 500, seed=1)
    assert found.mean == pytest.approx(numerator.sum() / denominator.sum())
    above, below = resampled_means(np.stack([numerator, denominator], 1), 500, seed=1).T
    np.testing.assert_allclose(found[1:], np.quantile(above / below, [0.025, 0.975]))
    constant = ratio_interval(2 * denominator, denominator, 100)
    np.testing.assert_allclose(constant, (2, 2, 2))
    assert np.isnan(ratio_interval(np.zeros(5), np.zeros(5), 10)).all()


def test_faults_of_resampling_are_named():
    with pytest.raises(ValueError, match=r"values: has shape \(3,\); wanted"):
        resampled_means(np.ones(3))
    with pytest.raises(ValueError, match="1 of 3 rows are not finite; the first is row 1"):
        resampled_means(np.array([[1.0], [np.nan], [2.0]]))
    with pytest.raises(ValueError, match="resamples is 0"):
        resampled_means(np.ones((3, 1)), 0)
    with pytest.raises(ValueError, match=r"numerator has shape \(3,\), denominator \(4,\)"):
        ratio_interval(np.ones(3), np.ones(4))
