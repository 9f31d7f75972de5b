"""Margins and distortion: the bound for every image, what is a near-tie and what is not, plain counts, every error."""

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from lossmap.measures.distortion import pair_changes, pair_quantiles
from lossmap.measures.margins import neighbour_margins
from lossmap.measures.near_ties import difference_noise
from lossmap.measures.neighbours import nearest_neighbours
from lossmap.measures.overlap import list_overlap

rng = np.random.default_rng(11)
N, KS = 300, [5, 20]
CENTRES = rng.normal(size=(30, 40))
X = CENTRES[np.arange(N) % 30] + 0.4 * rng.normal(size=(N, 40))  # 30 clusters of 10
Q, _ = np.linalg.qr(rng.normal(size=(40, 40)))


def half_permuted(x):
    """Half of the images exchanged among each other: each moves to another's place."""
    moved = rng.permutation(len(x))[: len(x) // 2]
    order = np.arange(len(x))
    order[moved] = np.roll(moved, 1)
    return x[order]


CONNECTORS = {
    "identity": X,
    "rotation": 3 * X @ Q,
    "projection": X @ rng.normal(size=(40, 15)),
    "half permuted": half_permuted(X),
    "unrelated": rng.normal(size=(N, 25)),
    "noisy": X + 0.3 * rng.normal(size=X.shape),
    "drawn together": X + 8,
    "reversed": 40 / (1 + (X - X.mean(0)) ** 2) * rng.choice([-1, 1], size=40),
}


def margins(after, ks=KS, before=X, **how):
    lists = [nearest_neighbours(x, max(ks), "cosine") for x in (before, after)]
    return neighbour_margins(before, after, *lists, ks, **how), lists


def cosines(x):
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit @ unit.T


@pytest.mark.parametrize("name", CONNECTORS)
@pytest.mark.parametrize("with_line", [False, True])
def test_the_bound_holds_for_every_image(name, with_line):
    after = CONNECTORS[name]
    line = pair_changes(X, after).line if with_line else (0.0, 1.0)
    found, lists = margins(after, line=line)
    for j, k in enumerate(KS):
        overlap = list_overlap(*lists, k)
        np.testing.assert_allclose(found.overlap(KS)[:, j], overlap)
        assert (overlap >= found.bound(KS)[:, j]).all()
        assert (overlap >= found.sharper_bound(KS)[:, j]).all()
    assert (found.sharper_bound(KS) >= found.bound(KS)).all()


@pytest.mark.parametrize("name", ["identity", "rotation"])
def test_a_rotation_loses_nothing_and_changes_no_cosine(name):
    found, _ = margins(CONNECTORS[name])
    assert found.epsilon.max() < 1e-12
    assert found.ties.max() == 0
    assert found.lost.max() == found.near_ties.max() == 0
    assert (found.bound(KS) == 1).all()
    assert (found.closeness == 1).all()
    changes = pair_changes(X, CONNECTORS[name])
    assert np.abs(changes.change).max() < 1e-12
    assert changes.line == pytest.approx((0, 1), abs=1e-9)
    assert np.ptp(changes.ratio) < 1e-12
    assert changes.ratio[0] == pytest.approx(3 if name == "rotation" else 1)


def share(name, column="near_ties", **how):
    found, _ = margins(CONNECTORS[name], **how)
    return getattr(found, column).sum(0) / found.lost.sum(0)


def test_a_random_projections_lost_neighbours_are_near_ties_and_a_permuted_halfs_are_not():
    assert (share("projection") > 0.95).all()
    assert (share("half permuted") < [0.1, 0.6]).all()  # a cluster has 9 others: beyond, all are about equally far
    typical = [
        np.median(np.abs(pair_changes(X, CONNECTORS[name]).residual)) for name in ("projection", "half permuted")
    ]
    assert share("projection", "own_ties", own_change=typical[0])[0] > 0.9
    assert share("half permuted", "own_ties", own_change=typical[1])[0] < 0.1


@pytest.mark.parametrize("alike", [0, 0.5, 0.9, 0.99])
def test_the_noise_of_a_difference_is_what_projections_make_of_it(alike):
    """Both candidates share the query, and each other's direction: their cosines err together."""
    query, one, other = rng.normal(size=(3, 60))
    one, other = one + query, other + query
    other = (1 - alike) * other + alike * one
    before = cosines(np.stack([query, one, other]))
    width, found = 200, []
    for _ in range(3000):
        after = cosines(np.stack([query, one, other]) @ rng.normal(size=(60, width)))
        found.append(after[0, 1] - after[0, 2])
    noise = difference_noise(before[0, 1], before[0, 2], before[1, 2], width)
    assert noise == pytest.approx(np.std(found), rel=0.06)  # four standard errors of a deviation of 3,000


def test_one_direction_is_not_told_apart():
    assert difference_noise(0.3, 0.3, 1.0, 50) == pytest.approx(0, abs=1e-9)
    assert difference_noise([0.0], [0.0], [0.0], 50) == pytest.approx([np.sqrt(2 / 50)])


def test_closeness_is_one_for_near_ties_and_zero_by_chance():
    assert margins(CONNECTORS["projection"])[0].closeness.mean(0)[0] > 0.9
    unrelated = margins(CONNECTORS["unrelated"])[0].closeness
    assert (np.abs(unrelated.mean(0)) < 5 * unrelated.std(0) / np.sqrt(N)).all()
    half = margins(CONNECTORS["half permuted"])[0].closeness.mean(0)
    assert ((half > 0.15) & (half < 0.5)).all()  # a quarter of the pairs is as it was


def test_margins_are_counted():
    after, k = CONNECTORS["noisy"], 5
    found, lists = margins(after, [k], own_change=0.05)
    s, t = cosines(X), cosines(after)
    for i in range(0, N, 23):
        others = np.delete(np.arange(N), i)
        inside, stranger = lists[0][i, :k], np.setdiff1d(others, lists[0][i, :k])
        epsilon = np.abs(t[i, others] - s[i, others]).max()
        lost, taken = np.setdiff1d(inside, lists[1][i, :k]), np.setdiff1d(lists[1][i, :k], inside)
        ordered = (sorted(items, key=lambda item: -s[i, item]) for items in (lost, taken))
        couples = list(zip(*ordered, strict=True))
        pairs = [(s[i, a], s[i, b]) for a, b in couples]
        noise = [difference_noise(s[i, a], s[i, b], s[a, b], 40) for a, b in couples]
        mean = s[i, others].mean()
        kernel = gaussian_kde(s[i, others])
        assert found.epsilon[i] == pytest.approx(epsilon)
        assert found.inside[i, 0] == pytest.approx(s[i, inside].min())
        assert found.outside[i, 0] == pytest.approx(s[i, stranger].max())
        assert found.ties[i, 0] == (s[i, inside][:, None] - s[i, stranger] <= 2 * epsilon + 1e-12).sum()
        assert found.lost[i, 0] == len(lost)
        assert found.near_ties[i, 0] == sum(a - b <= 2 * z for (a, b), z in zip(pairs, noise, strict=True))
        assert found.own_ties[i, 0] == sum(a - b <= 0.1 for a, b in pairs)
        assert found.closeness[i, 0] == pytest.approx(
            (s[i, lists[1][i, :k]].mean() - mean) / (s[i, inside].mean() - mean)
        )
        assert found.density[i, 0] == pytest.approx(kernel([s[i, inside].min(), s[i, stranger].max()]).min())
        np.testing.assert_allclose(found.nearest[i], np.sort(s[i, others])[::-1][: k + 1])
        for ranks, similar, items in ((found.ranks_before, s, lists[1]), (found.ranks_after, t, lists[0])):
            assert ranks[i].tolist() == [1 + (similar[i, others] > similar[i, item]).sum() for item in items[i]]


def test_margins_do_not_depend_on_the_block(monkeypatch):
    wanted, _ = margins(CONNECTORS["noisy"])
    monkeypatch.setattr("lossmap.measures.margins.BLOCK", 7)
    for ours, theirs in zip(margins(CONNECTORS["noisy"])[0], wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_twins_are_ties():
    twins = np.vstack([X[:50], X[:50]])
    found, _ = margins(twins + 1e-3 * rng.normal(size=twins.shape), [3], before=twins)
    assert (found.inside >= found.outside).all()
    alike, _ = margins(np.ones((8, 3)), [2], before=np.ones((8, 3)))
    assert np.isnan(alike.closeness).all()
    assert (alike.density == np.inf).all()


def test_drawing_together_changes_every_cosine_and_leaves_little_residual():
    changes = pair_changes(X, CONNECTORS["drawn together"])
    assert np.median(changes.change) > 0.5
    assert np.median(np.abs(changes.residual)) < 0.1 * np.median(changes.change)


def test_a_falling_relation_has_no_rising_line():
    changes = pair_changes(np.eye(4)[[0, 0, 1, 1]] + 0.1, np.eye(4)[[0, 1, 0, 1]] + 0.1)
    assert changes.line[1] == 0


def test_pairs_are_all_or_spread_evenly(monkeypatch):
    changes = pair_changes(X[:21], X[:21])
    assert len({frozenset(pair) for pair in zip(changes.first, changes.second, strict=True)}) == 21 * 20 / 2
    monkeypatch.setattr("lossmap.measures.distortion.PAIRS", 1000)
    changes = pair_changes(X, X)
    assert len(changes.cosine) == 4 * N
    assert (np.bincount(changes.first) == np.bincount(changes.second)).all()
    s = cosines(X)
    np.testing.assert_allclose(changes.cosine, s[changes.first, changes.second], atol=1e-12)


def test_the_ratio_of_twins_is_undefined():
    twins = np.vstack([X[:10], X[:10]])
    changes = pair_changes(twins, np.arange(20.0)[:, None] * np.ones(3) + 1)
    assert np.isnan(changes.ratio).sum() == 0  # with 20 images no two that are 10 apart are paired
    changes = pair_changes(np.repeat(X[:10], 2, axis=0), np.arange(20.0)[:, None] * np.ones(3) + 1)
    assert np.isnan(changes.ratio).sum() == 10


def test_quantiles_over_pairs_with_intervals_over_images():
    changes = pair_changes(X[:101], CONNECTORS["noisy"][:101])
    values = np.abs(changes.change)
    found = pair_quantiles(values, changes.first, changes.second, [0.5, 0.9], resamples=400)
    for interval, share in zip(found, [0.5, 0.9], strict=True):
        assert interval.mean == np.quantile(values, share, method="inverted_cdf")
        assert interval.low < interval.mean < interval.high
    sample = np.random.default_rng(0)
    slow = []
    for _ in range(400):
        times = np.bincount(sample.integers(0, 101, 101), minlength=101)
        slow.append(np.quantile(np.repeat(values, times[changes.first] * times[changes.second]), 0.5))
    np.testing.assert_allclose(found[0][1:], np.quantile(slow, [0.025, 0.975]), rtol=0.05)
    with_gap = pair_quantiles(np.where(values > 0.2, np.nan, values), changes.first, changes.second, [1.0], 10)
    assert with_gap[0].mean == values[values <= 0.2].max()


def test_faults_are_named():
    lists = nearest_neighbours(X, 5, "cosine")
    with pytest.raises(ValueError, match="before has 300 rows and after 299"):
        neighbour_margins(X, X[1:], lists, lists, [5])
    with pytest.raises(ValueError, match="after: row 3 has length zero"):
        neighbour_margins(X, np.where(np.arange(N)[:, None] == 3, 0, X), lists, lists, [5])
    with pytest.raises(ValueError, match="k is 299; wanted 1 to 298"):
        neighbour_margins(X, X, lists, lists, [299])
    with pytest.raises(ValueError, match=r"lists_after: has shape \(300, 4\); wanted \(300, at least 5\)"):
        neighbour_margins(X, X, lists, lists[:, :4], [5])
    with pytest.raises(ValueError, match="before has 300 rows and after 299"):
        pair_changes(X, X[1:])
    with pytest.raises(ValueError, match="before has 2 rows; wanted at least 3"):
        pair_changes(X[:2], X[:2])
    with pytest.raises(ValueError, match="before: 1 of 300 rows are not finite; the first is row 7"):
        pair_changes(np.where(np.arange(N)[:, None] == 7, np.nan, X), X)
    with pytest.raises(ValueError, match="no pair is left"):
        pair_quantiles(np.full(3, np.nan), np.arange(3), np.arange(3), [0.5])
