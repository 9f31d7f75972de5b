"""Nearest neighbours: against a slow float64 reference, against faiss, and whatever the block or thread."""

import faiss
import numpy as np
import pytest
import torch

from lossmap.measures.neighbours import nearest_neighbours

rng = np.random.default_rng(0)
X = rng.normal(size=(300, 24)).astype(np.float32)


def reference(x, k):
    """Differences, squares and sums in float64, ties to the lower index; nothing is expanded, nothing is in blocks."""
    x = np.asarray(x, dtype=np.float64)
    lists = []
    for i in range(len(x)):
        squared = ((x - x[i]) ** 2).sum(axis=1)
        order = np.lexsort((np.arange(len(x)), squared))
        lists.append(order[order != i][:k])
    return np.array(lists)


def integers(n, d, width):
    """Small integers: their distances are exact in any arithmetic and in any order, so ties are real ties."""
    return rng.integers(-width, width + 1, (n, d)).astype(np.float32)


def adversaries():
    step = np.float32(2.0**-23)
    yield "tiny gaps", 1 + step * integers(200, 16, 6)
    yield "large common offset", 2.0**20 + integers(200, 16, 4) / 8
    yield "duplicates", np.repeat(integers(40, 16, 3), 5, axis=0)[rng.permutation(200)]
    yield "a cluster of duplicates larger than k", np.vstack([np.zeros((120, 16)), integers(80, 16, 9)])
    yield "all rows equal", np.full((150, 16), np.float32(0.1))
    yield "points on the diagonal", np.arange(200)[rng.permutation(200), None] / 64 + np.zeros(700)
    yield "an outlier", np.vstack([integers(199, 16, 5), np.full(16, 2.0**22)])
    yield "two tight clusters", np.vstack([step * integers(100, 16, 9), 1 + step * integers(100, 16, 9)])
    yield "one feature", integers(200, 1, 30)
    yield "huge values", integers(200, 16, 5).astype(np.float64) * 2.0**400
    yield "small values", integers(200, 16, 5) * np.float32(2.0**-60)
    yield "half precision", integers(200, 16, 5).astype(np.float16)
    yield "two items", integers(2, 16, 5)


ADVERSARIES = dict(adversaries())


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ADVERSARIES)
@pytest.mark.parametrize("k", [1, 10, 100])
def test_float64_and_the_lower_index_decide(name, k):
    x = np.asarray(ADVERSARIES[name])
    k = min(k, len(x) - 1)
    np.testing.assert_array_equal(nearest_neighbours(x, k), reference(x, k))


@pytest.mark.parametrize("d", [3, 64, 1500])
def test_random_data_at_every_k(d):
    x = rng.normal(size=(120, d)).astype(np.float32)
    exact = reference(x, 119)
    for k in (1, 2, 17, 118, 119):
        np.testing.assert_array_equal(nearest_neighbours(x, k), exact[:, :k])


def test_long_rows_are_searched_by_groups():
    x = np.vstack([integers(3000, 6, 9), integers(3, 6, 9)])  # not a whole number of groups
    np.testing.assert_array_equal(nearest_neighbours(x, 3), reference(x, 3))


def test_float64_values_that_float32_cannot_hold():
    x = 1 + rng.normal(size=(200, 8)) * 1e-9
    np.testing.assert_array_equal(nearest_neighbours(x, 20), reference(x, 20))


def test_order_does_not_change_with_block_or_threads():
    x = np.vstack([X, X[:50], integers(50, 24, 2)])
    expected = nearest_neighbours(x, 60)
    for block in (1, 7, len(x), 10 * len(x)):
        np.testing.assert_array_equal(nearest_neighbours(x, 60, block=block), expected)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        np.testing.assert_array_equal(nearest_neighbours(x, 60), expected)
        assert torch.get_num_threads() == threads


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_order_does_not_change_with_the_device(metric):
    x = np.vstack([X, X[:50], 3 * X[50:100]])
    expected = nearest_neighbours(x, 60, metric)
    np.testing.assert_array_equal(nearest_neighbours(x, 60, metric, device="cuda"), expected)


def test_reduced_precision_products_asked_for_elsewhere_do_no_harm():
    expected = nearest_neighbours(X, 20)
    torch.set_float32_matmul_precision("medium")
    try:
        np.testing.assert_array_equal(nearest_neighbours(X, 20), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_input_is_left_as_it_was():
    x = X.copy()
    x.setflags(write=False)
    nearest_neighbours(x, 5, "cosine")
    np.testing.assert_array_equal(x, X)


def test_nobody_is_their_own_neighbour_and_lists_have_no_repeats():
    x = np.repeat(X[:40], 6, axis=0)
    lists = nearest_neighbours(x, 100)
    assert lists.dtype == np.int64
    assert (lists != np.arange(len(x))[:, None]).all()
    assert all(len(set(row)) == 100 for row in lists)


def test_by_hand():
    x = np.array([[0.0], [1.0], [3.0], [-1.0]])
    assert nearest_neighbours(x, 3).tolist() == [[1, 3, 2], [0, 2, 3], [1, 0, 3], [0, 1, 2]]


def test_inner_product_by_hand():
    x = np.array([[1.0, 0.0], [10.0, 1.0], [0.0, 0.1], [-5.0, 0.0]])
    assert nearest_neighbours(x, 3, "cosine").tolist() == [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 1, 0]]


def test_inner_product_ignores_length():
    lengths = 2.0 ** rng.integers(-8, 9, (len(X), 1))
    np.testing.assert_array_equal(nearest_neighbours(X * lengths, 50, "cosine"), nearest_neighbours(X, 50, "cosine"))


def test_faiss_agrees_for_every_image_where_its_arithmetic_is_exact():
    x = integers(400, 32, 20)
    index = faiss.IndexFlatL2(32)
    index.add(x)
    squared, found = index.search(x, 400)
    order = np.lexsort((found, squared))  # faiss leaves ties in no order
    found = np.take_along_axis(found, order, axis=1)
    expected = found[found != np.arange(400)[:, None]].reshape(400, 399)
    np.testing.assert_array_equal(nearest_neighbours(x, 100), expected[:, :100])


@pytest.mark.parametrize(("metric", "index"), [("euclidean", faiss.IndexFlatL2), ("cosine", faiss.IndexFlatIP)])
def test_faiss_agrees_for_every_image_up_to_its_rounding(metric, index):
    x = X / np.linalg.norm(X, axis=1, keepdims=True) if metric == "cosine" else X
    index = index(x.shape[1])
    index.add(x)
    _, found = index.search(x, 31)
    assert (found[:, 0] == np.arange(len(x))).all()
    ours = nearest_neighbours(X, 30, metric)

    def distances(lists):
        return ((x[lists].astype(np.float64) - x[:, None]) ** 2).sum(axis=2)

    np.testing.assert_allclose(distances(ours), distances(found[:, 1:]), rtol=0, atol=2e-5)
    assert (ours == found[:, 1:]).mean() > 0.999


@pytest.mark.parametrize(
    ("x", "k", "options", "message"),
    [
        (X[0], 1, {}, r"x: has shape \(24,\); wanted 2 dimensions"),
        (X[:0], 1, {}, r"x: is empty, shape \(0, 24\)"),
        (X[:, :0], 1, {}, r"x: is empty, shape \(300, 0\)"),
        (np.array([["a"], ["b"]]), 1, {}, "x: holds <U1; wanted real numbers"),
        (X, 0, {}, "k is 0; wanted 1 to 299"),
        (X, 300, {}, "k is 300; wanted 1 to 299"),
        (X, 5, {"metric": "cityblock"}, "metric is 'cityblock'; wanted one of euclidean, cosine"),
        (X, 5, {"block": 0}, "block is 0; wanted at least 1"),
        (
            np.where(np.arange(300)[:, None] >= 7, np.inf, X),
            5,
            {},
            "x: 293 of 300 rows are not finite; the first is row 7",
        ),
        (
            np.where(np.arange(300)[:, None] == 4, -1e200, X.astype(float)),
            5,
            {},
            r"x: row 4 holds a value beyond 1e\+150",
        ),
        (np.where(np.arange(300)[:, None] == 9, 0, X), 5, {"metric": "cosine"}, "x: row 9 has length zero"),
    ],
)
def test_every_error_says_what_was_wanted(x, k, options, message):
    with pytest.raises(ValueError, match=message):
        nearest_neighbours(x, k, **options)
