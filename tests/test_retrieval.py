"""Recall@r: by hand, chance, scikit-learn, every error; and how it goes with overlap, given what explains both."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.neighbors import NearestNeighbors
from specs import checked

from lossmap.measures.influence import PerItem
from lossmap.measures.neighbours import nearest_neighbours
from lossmap.measures.ranking import plain_ranking
from lossmap.measures.relations import partial_spearman
from lossmap.measures.retrieval import recall_at
from lossmap.study.exhibits import table2
from lossmap.study.neighbour_lists import NeighbourLists, write_lists
from lossmap.study.steps import measure_retrieval

LISTS = np.array([[1, 2, 3], [2, 0, 3], [0, 1, 3], [2, 1, 0]])


def found_at(lists, labels, r):
    return recall_at(plain_ranking(lists), labels, r).values


def test_by_hand():
    labels = ["wren", "gull", "wren", "gull"]
    assert found_at(LISTS, labels, 1).tolist() == [0, 0, 1, 0]
    assert found_at(LISTS, labels, 2).tolist() == [1, 0, 1, 1]
    assert found_at(LISTS, labels, 3).tolist() == [1, 1, 1, 1]
    assert found_at(LISTS, labels, 3).dtype == np.float64


def test_a_class_of_one_cannot_be_found_and_counts_as_missed():
    assert found_at(LISTS, [5, 5, 5, 8], 3).tolist() == [1, 1, 1, 0]


def test_recall_never_falls_with_r():
    rng = np.random.default_rng(0)
    lists, labels = nearest_neighbours(rng.normal(size=(200, 4)), 20), rng.integers(0, 9, 200)
    found = np.array([found_at(lists, labels, r) for r in range(1, 21)])
    assert (np.diff(found, axis=0) >= 0).all()


def test_random_neighbours_score_chance():
    rng = np.random.default_rng(1)
    n, classes, r = 2000, 20, 5
    found = found_at(nearest_neighbours(rng.normal(size=(n, 6)), r), np.arange(n) % classes, r)
    same = (n / classes - 1) / (n - 1)
    assert abs(found.mean() - (1 - (1 - same) ** r)) < 5 * found.std() / np.sqrt(n)


@pytest.mark.parametrize("r", [1, 5])
def test_scikit_learn_agrees(r):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 12, 300)
    x = rng.normal(size=(12, 10))[labels] + 1.5 * rng.normal(size=(300, 10))
    theirs = NearestNeighbors(n_neighbors=r, algorithm="kd_tree").fit(x).kneighbors(return_distance=False)
    expected = [label in labels[row] for label, row in zip(labels, theirs, strict=True)]
    np.testing.assert_array_equal(found_at(nearest_neighbours(x, 10), labels, r), expected)


def test_what_the_size_of_classes_makes_of_recall_and_overlap_is_taken_out(tmp_path):
    """Neighbours before are drawn at random, so large classes are found more often; they keep more, too."""
    rng, n, k = np.random.default_rng(5), 400, 20
    labels = np.repeat(np.arange(28), rng.permutation(np.r_[np.full(25, 4), 100, 100, 100]))
    size = pd.Series(labels).groupby(labels).transform("size").to_numpy()
    before = np.stack([rng.permutation(np.delete(np.arange(n), i))[:k] for i in range(n)])
    kept = rng.binomial(k, np.where(size > 50, 0.7, 0.3))
    others = [rng.permutation(np.setdiff1d(np.arange(n), [i, *row])) for i, row in enumerate(before)]
    after = np.stack(
        [np.r_[row[-m:] if m else row[:0], rest][:k] for row, m, rest in zip(before, kept, others, strict=True)]
    )
    image_ids = np.array([f"i{i}" for i in range(n)])
    rankings = {("euclidean", stage): plain_ranking(lists) for stage, lists in (("pre", before), ("post", after))}
    write_lists(tmp_path / "lists", NeighbourLists(image_ids, {}, rankings))
    pd.DataFrame({"image_id": image_ids, "label": labels.astype(str)}).to_parquet(tmp_path / "images")
    spec = {"dataset": "d", "model": "m", "recall": [1, 5], "metrics": ["euclidean"], "overlap_k": k}
    spec |= {"confidence": 0.95}
    out = {name: tmp_path / name for name in ("queries", "summary")}
    measure_retrieval.run(
        lists=tmp_path / "lists", images=tmp_path / "images", **out, spec=checked("measure_retrieval", spec)
    )
    found = pd.read_parquet(out["summary"]).set_index("stage").loc["pre"]
    assert found["spearman_r5_overlap_low"] > 0.2
    assert found["partial_r5_overlap_low"] < 0 < found["partial_r5_overlap_high"]
    queries = pd.read_parquet(out["queries"]).query("stage == 'pre'")
    assert found["recall_at_5"] == queries["recall_at_5"].mean()  # a share, not percent
    occurrence = np.bincount(before.ravel(), minlength=n)
    wanted = partial_spearman(queries["recall_at_5"], queries[f"overlap_k{k}"], [size, occurrence], 1)
    assert found["partial_r5_overlap"] == pytest.approx(wanted.rho)


def test_where_no_query_changed_the_change_is_bounded_by_what_could_have_been_missed():
    for n in (1, 10, 400):
        same = PerItem(np.ones(n), np.zeros(n))
        mean, low, high = (same - same).change_interval(0.95)
        assert (mean, -low) == (0, high)
        assert (1 - high) ** n == pytest.approx(0.05)  # as likely is it to see none of n where this share changes
    assert high == pytest.approx(binomtest(0, n).proportion_ci(0.9, "exact").high)


def test_where_a_query_changed_the_interval_is_that_of_any_mean():
    rng = np.random.default_rng(3)
    change = PerItem(rng.integers(0, 2, 50) * 1.0, rng.normal(size=50)) - PerItem(np.ones(50), np.zeros(50))
    assert change.change_interval(0.9) == change.interval(0.9, bounds=(-1, 1))
    moved = PerItem(np.zeros(50), rng.normal(size=50))  # no query, but what queries are found by
    assert moved.change_interval() == moved.interval(bounds=(-1, 1))


def retrieved(folder, lists, labels, copies):
    """Summary and sentences where the second side has the lists of the first."""
    ids = np.array([f"i{i}" for i in range(len(lists))])
    rankings = {("euclidean", stage): plain_ranking(lists) for stage in ("pre", "post")}
    write_lists(folder / "lists", NeighbourLists(ids, copies, rankings))
    pd.DataFrame({"image_id": list(labels), "label": list(labels.values())}).to_parquet(folder / "images")
    spec = {"dataset": "d", "model": "m", "recall": [1], "metrics": ["euclidean"], "overlap_k": 2}
    spec |= {"confidence": 0.95}
    out = {name: folder / name for name in ("queries", "summary")}
    measure_retrieval.run(
        lists=folder / "lists", images=folder / "images", **out, spec=checked("measure_retrieval", spec)
    )
    settings = table2.Settings(metric="euclidean", recall=[1], overlap_k=2, checkpoints={"m": "x"}, confidence=0.95)
    table = table2.table(settings, [out["summary"]])
    return table, "\n".join(table2.findings(table, settings))


def test_copies_of_another_class_are_counted_and_told(tmp_path):
    rng = np.random.default_rng(4)
    lists = nearest_neighbours(rng.normal(size=(40, 3)), 5)
    labels = {f"i{i}": f"class {i % 4}" for i in range(40)} | {"a": "class 0", "b": "class 1", "c": "class 1"}
    copies = {"a": "i0", "b": "i0", "c": "i4"}  # of class 0
    table, finding = retrieved(tmp_path, lists, labels, copies)
    assert table["copies_of_other_class"].tolist() == [2, 2]
    assert "On d, 3 of 43 images are copies of another and left out." in finding
    assert "On d, 2 of the copies left out are of another class than the image that is the same" in finding
    most = 1 - 0.05 ** (1 / 40)
    assert table["recall_at_1_change_high"].tolist() == pytest.approx([most] * 2, rel=1e-5)
    assert f"a change of 0.000 [-{most:.3f}, {most:.3f}]." in finding
    table, finding = retrieved(tmp_path, lists, labels, {"a": "i0", "i8": "i4", "i9": "i4"})  # the last two were ranked
    assert table["copies_of_other_class"].tolist() == [0, 0]
    assert "another class" not in finding


@pytest.mark.parametrize(
    ("lists", "labels", "r", "message"),
    [
        (LISTS[0], [1, 2, 3, 4], 1, r"lists: int64 of shape \(3,\); wanted integer neighbour lists"),
        (LISTS * 1.0, [1, 2, 3, 4], 1, "lists: float64 of shape"),
        (LISTS, [1, 2, 3], 1, r"labels: has shape \(3,\); wanted \(4,\)"),
        (LISTS, [1, 2, 3, 4], 4, "r is 4; wanted 1 to 3"),
        (LISTS, [1, 2, 3, 4], 0, "r is 0; wanted 1 to 3"),
        (LISTS, np.array(["a", None, "b", None], dtype=object), 1, "labels: 2 of 4 are missing; the first is row 1"),
        (LISTS, [1, 2, np.nan, 4], 1, "labels: 1 of 4 are missing; the first is row 2"),
        (LISTS + 1, [1, 2, 3, 4], 1, "lists: row 1 names itself"),
    ],
)
def test_every_error_says_what_was_wanted(lists, labels, r, message):
    with pytest.raises(ValueError, match=message):
        found_at(lists, labels, r)
