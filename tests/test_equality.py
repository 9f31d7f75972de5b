"""Copies: who equals whom, what the neighbour step does with them, and what the overlap of a study with copies is."""

import numpy as np
import pandas as pd
import pytest
from specs import checked
from toy_store import embeddings, write_store

from lossmap.errors import LossmapError
from lossmap.measures.equality import first_of_equals
from lossmap.measures.overlap import chance_overlap, neighbour_overlap
from lossmap.study.exhibits import figure3
from lossmap.study.neighbour_lists import read_lists
from lossmap.study.steps import find_neighbours, measure_overlap, measure_retrieval

PRE, POST = embeddings(30)


def test_equal_pixels_or_equal_embeddings_make_one_group():
    x = np.array([[1.0], [2.0], [1.0], [3.0], [2.5], [4.0]])
    assert first_of_equals(x).tolist() == [0, 1, 0, 3, 4, 5]
    assert first_of_equals(x, [*"abcbde"]).tolist() == [0, 1, 0, 1, 4, 5]
    assert first_of_equals(x, [*"abccde"]).tolist() == [0, 1, 0, 0, 4, 5]  # 3 has the pixels of 2, 2 the embedding of 0
    assert first_of_equals(np.ones((4, 2)), [*"abcd"]).tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"pixels: has shape \(2,\); wanted \(6,\)"):
        first_of_equals(x, ["a", "b"])


def measured(folder, rows, equal_images="drop", noise=0.0, k=(5,)):
    """Overlap of a study whose i-th image is a copy of number rows[i] of 30.

    noise: by which embeddings of copies differ, as they do where copies stand in batches of other sizes. Returns
    summary, table per image, and the finding.
    """
    rng = np.random.default_rng(1)
    pre, post = (x[rows] + noise * rng.normal(size=(len(rows), *x.shape[1:])) for x in (PRE, POST))
    folder.mkdir(exist_ok=True)
    index = write_store(folder / "m.json", pre.astype("f4"), post.astype("f4"), dtype="float32")
    images = pd.DataFrame({"image_id": [f"image-{i}" for i in range(len(rows))], "pixels_sha256": [*map(str, rows)]})
    images.assign(label=[*map(str, np.arange(len(rows)) % 3)]).to_parquet(folder / "images")
    spec = {"k": max(k), "metrics": ["euclidean"], "equal_images": equal_images}
    find_neighbours.run(
        embeddings=index, images=folder / "images", lists=folder / "lists", spec=checked("find_neighbours", spec)
    )
    spec = {
        "dataset": "d",
        "model": "m",
        "k": list(k),
        "metrics": ["euclidean"],
        "permutations": 60,
        "confidence": 0.95,
    }
    measure_overlap.run(
        lists=folder / "lists",
        overlap=folder / "overlap",
        summary=folder / "summary",
        spec=checked("measure_overlap", spec | {"seed": 0}),
    )
    settings = figure3.Settings(checkpoints={"m": "x"}, permutations=60, confidence=0.95)
    finding = "\n".join(figure3.findings(figure3.table(settings, [folder / "summary"]), settings))
    summary = pd.read_parquet(folder / "summary").set_index("k")
    return summary, pd.read_parquet(folder / "overlap"), finding


# 30 photographs, and 29 further copies of the last, as of a black frame; 20 scenes in three copies each
BLACK, TRIPLES = np.r_[:30, np.full(29, 29)], np.tile(np.arange(20), 3)


@pytest.mark.parametrize("noise", [0, 1e-6])
@pytest.mark.parametrize(("rows", "distinct"), [(BLACK, 30), (TRIPLES, 20)])
def test_copies_change_nothing(tmp_path, rows, distinct, noise):
    summary, table, finding = measured(tmp_path / "copies", rows, noise=noise)
    alone, _, plain = measured(tmp_path / "alone", np.arange(distinct), noise=noise)
    first = neighbour_overlap(PRE[:distinct].mean(1), POST[:distinct].mean(1), 5).per_item
    assert summary.loc[5, "overlap"] == pytest.approx(first.mean())
    assert summary.loc[5, ["n", "images", "copies"]].tolist() == [distinct, len(rows), len(rows) - distinct]
    same = ["overlap", "low", "high", "chance", "overlap_paper_convention", "null_low", "null_high", "p_permutation"]
    assert summary[same].equals(alone[same])
    assert table["image_id"].tolist() == [f"image-{i}" for i in range(distinct)]
    assert f"{len(rows) - distinct} of {len(rows)} images are copies of another and left out." in finding
    assert "copies" not in plain


@pytest.mark.parametrize("noise", [0, 1e-6])
def test_copies_that_count_share_places(tmp_path, noise):
    """Each of three copies is nearest to the other two, on both sides; the 3 places left at k = 5 go to one scene."""
    summary, _, finding = measured(tmp_path, TRIPLES, "count", noise=noise, k=(1, 2, 5))
    assert summary.loc[1, "overlap"] == pytest.approx(1 / 2)  # one of two, at random on each side
    assert summary.loc[2, "overlap"] == 1
    nearest = neighbour_overlap(PRE[:20].mean(1), POST[:20].mean(1), 1).per_item
    assert summary.loc[5, "overlap"] == pytest.approx((2 + 3 * nearest.mean()) / 5)
    assert summary.loc[5, ["n", "images", "copies"]].tolist() == [60, 60, 40]
    assert "40 of 60 images are copies of another, and counted like all others." in finding


def test_sixty_copies_of_one_image_have_no_neighbours(tmp_path):
    with pytest.raises(LossmapError, match="59 of 60 images are copies of another; the 1 left have fewer than 5"):
        measured(tmp_path, np.zeros(60, dtype=int))
    summary, _, _ = measured(tmp_path, np.zeros(60, dtype=int), "count")
    assert summary.loc[5, "overlap"] == pytest.approx(chance_overlap(60, 5))
    assert summary.loc[5, "p_permutation"] == 1


def test_a_copy_in_the_gallery_is_no_hit(tmp_path):
    measured(tmp_path, np.r_[:30, :30])
    assert set(read_lists(tmp_path / "lists").copies.items()) == {(f"image-{i + 30}", f"image-{i}") for i in range(30)}
    labels = np.arange(30).astype(str)  # every class has one picture, saved twice
    images = pd.read_parquet(tmp_path / "images").assign(label=np.r_[labels, labels])
    images.to_parquet(tmp_path / "images")
    spec = {
        "dataset": "d",
        "model": "m",
        "recall": [1, 5],
        "metrics": ["euclidean"],
        "overlap_k": 5,
        "confidence": 0.95,
    }
    out = {"queries": tmp_path / "queries", "summary": tmp_path / "retrieval"}
    measure_retrieval.run(
        lists=tmp_path / "lists", images=tmp_path / "images", **out, spec=checked("measure_retrieval", spec)
    )
    summary = pd.read_parquet(tmp_path / "retrieval")
    assert (summary[["recall_at_1", "recall_at_5"]] == 0).all(axis=None)
    assert (summary["n"] == 30).all()
