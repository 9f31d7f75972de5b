"""Overlap: theorems, a hand count, chance, the paper's convention, every error."""

import numpy as np
import pytest

from lossmap.measures.neighbours import nearest_neighbours, rank_neighbours
from lossmap.measures.overlap import (
    chance_corrected,
    chance_overlap,
    list_overlap,
    neighbour_overlap,
    overlap_including_self,
    permutation_null,
    ranking_overlap,
)
from lossmap.measures.ranking import plain_ranking
from lossmap.measures.simulation import clusters, gaussian_channel

rng = np.random.default_rng(1)
X = rng.normal(size=(400, 8))
A = nearest_neighbours(X, 60)
B = nearest_neighbours(X + 0.7 * rng.normal(size=X.shape), 60)
RANKED = plain_ranking(A), plain_ranking(B)
UNRELATED = nearest_neighbours(rng.normal(size=(400, 5)), 60)


def kept(*given):
    return neighbour_overlap(*given, permutations=0).per_item


def slow_overlap(a, b, k):
    return np.array([len(set(p[:k]) & set(q[:k])) / k for p, q in zip(a.tolist(), b.tolist(), strict=True)])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_identity_rotation_and_scale_keep_every_neighbour(metric):
    q, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    assert (kept(X, X, 10, metric) == 1).all()
    assert (kept(X, 3 * X @ q, 10, metric) == 1).all()


def test_translation_keeps_every_neighbour():
    assert (kept(X, X + 1000, 10) == 1).all()


def test_padding_with_constant_features_keeps_every_neighbour():
    assert (kept(X, np.hstack([X, np.full((400, 3), 7.0)]), 25) == 1).all()


def test_overlap_is_symmetric():
    np.testing.assert_array_equal(kept(X, X[:, :4], 20), kept(X[:, :4], X, 20))


def test_unrelated_embeddings_score_chance():
    scores = kept(rng.normal(size=(1500, 6)), rng.normal(size=(1500, 9)), 50)
    error = scores.std() / np.sqrt(len(scores))
    assert abs(scores.mean() - chance_overlap(1500, 50)) < 5 * error


def shares_of(x, k):
    """Slowly: the probability that each item is among each item's k nearest, ties in random order."""
    squared = ((x[:, None] - x[None]) ** 2).sum(axis=2).astype(float)
    np.fill_diagonal(squared, np.inf)
    limit = np.sort(squared, axis=1)[:, k - 1 : k]
    nearer, tied = squared < limit, squared == limit
    return nearer + tied * (k - nearer.sum(1, keepdims=True)) / tied.sum(1, keepdims=True)


def slow_parts(x, y, k):
    """Slowly: what each item, as a neighbour, adds to each item's overlap."""
    p, q = shares_of(x, k), shares_of(y, k)
    width = min(k, round(1.5 * k**0.5))
    last, window = ([side - (shares_of(z, k - w) if w < k else 0) for z, side in ((x, p), (y, q))] for w in (1, width))
    pushed = 0
    for side, other, end, many in zip((p, q), (q, p), last, window, strict=True):
        hits = (many * other).sum(1)
        shares = (hits + 2 * hits.mean() / width) / (width + 2)
        pushed = pushed + (shares * (end * other).sum() / shares.sum() if hits.any() else hits)[:, None] * side
    return (p * q * (1 + (last[0] * last[1]).sum() / len(p)) - pushed) / k


@pytest.mark.parametrize("k", [1, 4, 9, 29])
@pytest.mark.parametrize("widths", [(2, 5), (4, 1), (1, 1), (9, 9)])  # few different values: many ties and many twins
def test_ties_share_their_places(k, widths):
    x, y = (rng.integers(0, width, (30, 2)) for width in widths)
    a, b = (rank_neighbours(side, max(k, 7)) for side in (x, y))
    p, q = shares_of(x, k), shares_of(y, k)
    np.testing.assert_allclose(a.shares(k).toarray(), p, rtol=1e-12)
    if k > 1:
        np.testing.assert_allclose(a.shares(k, after=k // 2).toarray(), p - shares_of(x, k // 2), atol=1e-12)
    found = ranking_overlap(a, b, k, parts=True)
    overlap = (p * q).sum(1) / k
    np.testing.assert_allclose(found.values, overlap, rtol=1e-12)
    parts = slow_parts(x, y, k)
    np.testing.assert_allclose(found.parts.toarray(), parts, atol=1e-12)
    influence = overlap + parts.sum(0)
    np.testing.assert_allclose(found.influence, influence - influence.mean(), atol=1e-12)
    names = np.random.default_rng(5)
    for value in permutation_null(a, b, k, 3, np.random.default_rng(5)):
        old = names.permutation(30)
        assert value == pytest.approx((p * q[np.ix_(old, old)]).sum() / (30 * k), abs=1e-12)


@pytest.mark.parametrize("after", [0, 59])
def test_shares_of_lists_without_ties_are_the_places_of_each_and_change_no_list(after):
    ranking = plain_ranking(A.copy())
    shares = ranking.shares(60, slice(3, 7), after=after)
    expected = np.zeros((4, 400))
    np.put_along_axis(expected, A[3:7, after:], 1, axis=1)
    np.testing.assert_array_equal(shares.toarray(), expected)
    np.testing.assert_array_equal(ranking.items, A)


@pytest.mark.parametrize("k", [1, 10, 60])
def test_lists_that_are_alike_overlap_without_error(k):
    found = ranking_overlap(RANKED[0], RANKED[0], k, parts=True)
    assert found.interval() == (1, 1, 1)
    assert not found.parts.toarray().any()


@pytest.mark.parametrize("draw", [gaussian_channel, clusters])
def test_an_item_adds_what_leaving_it_out_takes_away(draw):
    n, k = 300, 40
    sample = draw(n, np.random.default_rng(1))
    lists = [nearest_neighbours(side, k + 1) for side in (sample.before, sample.after)]
    found = ranking_overlap(*map(plain_ranking, lists), k)
    changes = np.empty(n)
    for i in range(n):
        left = [np.delete(side, i, axis=0) for side in lists]
        left = [
            np.take_along_axis(side, np.argsort(side == i, axis=1, kind="stable"), axis=1) for side in left
        ]  # i last
        changes[i] = n * (found.values.mean() - slow_overlap(*left, k).mean())
    slope = np.polyfit(found.influence, changes, 1)[0]
    assert slope == pytest.approx(1, abs=0.15)
    assert np.corrcoef(found.influence, changes)[0, 1] > 0.85


def test_a_connector_that_makes_all_alike_scores_chance_however_many_images():
    x = rng.normal(size=(3000, 4))
    a, b = rank_neighbours(x, 20), rank_neighbours(np.ones((3000, 4)), 20)
    found = ranking_overlap(a, b, 20)
    np.testing.assert_allclose(found.values, chance_overlap(3000, 20))
    assert found.interval() == pytest.approx([chance_overlap(3000, 20)] * 3, abs=1e-4)
    np.testing.assert_allclose(permutation_null(a, b, [5, 20], 3, rng), [np.array([5, 20]) / 2999] * 3)


def test_by_hand():
    before = np.array([[0.0], [1.0], [3.0], [7.0]])  # lists of two: 0: 1 2, 1: 0 2, 2: 1 0, 3: 2 1
    after = np.array([[0.0], [5.0], [1.0], [2.0]])  # 0: 2 3, 1: 3 2, 2: 0 or 3, 3: 2 0
    assert kept(before, after, 2).tolist() == [0.5, 0.5, 0.5, 0.5]
    assert kept(before, after, 1).tolist() == [0, 0, 0, 1]
    assert kept(before, after, 3).tolist() == [1, 1, 1, 1]


def test_lists_found_once_serve_every_k():
    for k in (1, 7, 60):
        expected = slow_overlap(A, B, k)
        np.testing.assert_array_equal(list_overlap(A, B, k), expected)
        assert list_overlap(A, B, k).dtype == np.float64


def test_rows_are_taken_in_blocks(monkeypatch):
    monkeypatch.setattr("lossmap.measures.overlap.TABLE_BYTES", 7 * 400)
    np.testing.assert_array_equal(list_overlap(A, B, 60), slow_overlap(A, B, 60))


def test_an_item_in_its_own_list_raises_the_overlap():
    own = np.arange(400)[:, None]
    for k in (1, 2, 10, 60):
        expected = slow_overlap(np.hstack([own, A]), np.hstack([own, B]), k)
        np.testing.assert_allclose(overlap_including_self(A, B, k), expected, rtol=1e-15)
    assert (overlap_including_self(A, UNRELATED, 10) >= 0.1).all()


def test_the_papers_half_at_ten_is_four_ninths_without_the_item_itself():
    item = np.arange(30)[:, None]
    a, b = (item + np.arange(1, 10)) % 30, (item + np.arange(6, 15)) % 30
    assert (list_overlap(a, b, 9) == 4 / 9).all()
    assert (overlap_including_self(a, b, 10) == 0.5).all()


def test_chance_and_what_is_above_it():
    assert chance_overlap(101, 10) == 0.1
    assert chance_corrected(1.0, 101, 10) == 1
    assert chance_corrected(0.1, 101, 10) == 0
    np.testing.assert_allclose(chance_corrected(np.array([0.55, 0.0]), 101, 10), [0.5, -1 / 9])
    assert np.isnan(chance_corrected(1.0, 11, 10))


def test_forgotten_correspondence_scores_chance():
    null = permutation_null(*RANKED, [10, 60], 200, np.random.default_rng(0))
    assert null.shape == (200, 2)
    for column, k in enumerate((10, 60)):
        error = null[:, column].std() / np.sqrt(200)
        assert abs(null[:, column].mean() - chance_overlap(400, k)) < 5 * error
    assert (null[:, 0] < list_overlap(A, B, 10).mean()).all()


def test_each_permutation_renames_rows_and_entries(monkeypatch):
    monkeypatch.setattr("lossmap.measures.overlap.TABLE_BYTES", 37 * 400)
    null = permutation_null(*RANKED, 25, 4, np.random.default_rng(5))
    names = np.random.default_rng(5)
    for value in null:
        old = names.permutation(400)  # item i is now the one that b called old[i]
        new = np.argsort(old)
        assert value == pytest.approx(slow_overlap(A, new[B[old]], 25).mean(), abs=1e-15)


def test_several_k_share_their_permutations():
    several = permutation_null(*RANKED, [5, 30], 3, np.random.default_rng(2))
    np.testing.assert_array_equal(several[:, 0], permutation_null(*RANKED, 5, 3, np.random.default_rng(2)))


def test_before_and_after_are_named():
    with pytest.raises(ValueError, match="before has 400 rows and after 399; row i must be the same item"):
        kept(X, X[1:], 5)
    with pytest.raises(ValueError, match="after: 1 of 400 rows are not finite; the first is row 7"):
        kept(X, np.where(np.arange(400)[:, None] == 7, np.nan, X), 5)
    with pytest.raises(ValueError, match=r"before: has shape \(400,\); wanted 2 dimensions"):
        kept(X[:, 0], X, 5)
    with pytest.raises(ValueError, match="after: is empty"):
        kept(X, X[:0], 5)
    with pytest.raises(ValueError, match="after: row 3 has length zero"):
        kept(X, np.where(np.arange(400)[:, None] == 3, 0, X), 5, "cosine")
    with pytest.raises(ValueError, match="k is 400; wanted 1 to 399"):
        kept(X, X, 400)


@pytest.mark.parametrize("score", [ranking_overlap, lambda a, b, k: permutation_null(a, b, k, 2, rng)])
def test_rankings_that_do_not_fit_are_named(score):
    with pytest.raises(ValueError, match="k is 61; wanted 1 to 60, the length of the neighbour lists"):
        score(*RANKED, 61)
    with pytest.raises(ValueError, match="k is 0"):
        score(*RANKED, 0)
    with pytest.raises(ValueError, match="a ranks 400 items and b 399"):
        score(RANKED[0], plain_ranking((np.arange(399)[:, None] + 1) % 399), 1)


def test_faulty_lists_are_named():
    with pytest.raises(ValueError, match="k is 61; wanted 1 to 60, the length of the neighbour lists a"):
        list_overlap(A, B, 61)
    with pytest.raises(ValueError, match="k is 0"):
        list_overlap(A, B, 0)
    with pytest.raises(ValueError, match="a has 400 neighbour lists and b has 399"):
        list_overlap(A, (np.arange(399)[:, None] + 1) % 399, 1)
    with pytest.raises(ValueError, match="b: float64 of shape .* wanted integer neighbour lists"):
        list_overlap(A, B * 1.0, 5)
    with pytest.raises(ValueError, match="b: row 3 names an item outside 0 to 399"):
        list_overlap(A, np.where(np.arange(400)[:, None] == 3, 400, B), 5)
    with pytest.raises(ValueError, match="a: row 0 names itself"):
        list_overlap(np.hstack([np.arange(400)[:, None], A]), B, 5)


def test_other_numbers_out_of_range():
    with pytest.raises(ValueError, match="k is 10; wanted 1 to 9"):
        chance_overlap(10, 10)
    for k in (0, 62):
        with pytest.raises(ValueError, match=f"k is {k}; wanted 1 to 61, the length .* with the item itself"):
            overlap_including_self(A, B, k)
    with pytest.raises(ValueError, match="permutations is 0; wanted at least 1"):
        permutation_null(*RANKED, 5, 0, rng)
