"""Tables say the same thing in each of their forms, and the paper's numbers stand beside the right rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lossmap.measures.neighbours import rank_neighbours
from lossmap.measures.seeds import seed_for
from lossmap.study.neighbour_lists import NeighbourLists, read_lists, write_lists
from lossmap.study.paper import MODELS, beside
from lossmap.study.steps import tabulate_overlap, tabulate_retrieval
from lossmap.study.tables import VIEW, about_copies, p_value, p_values, write_csv, write_html

ROOT = Path(__file__).parents[1]

FRAME = pd.DataFrame({"model": ["a<b", "c"], "n": [3, 1200], "overlap": [1 / 3, np.nan]})


def test_a_csv_has_six_digits_and_reads_back(tmp_path):
    write_csv(FRAME, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "model,n,overlap\na<b,3,0.333333\nc,1200,\n"


def test_a_page_shows_every_cell_and_escapes_text(tmp_path):
    write_html(FRAME, tmp_path / "t.html", "Title & more", "What it means.")
    page = (tmp_path / "t.html").read_text()
    for part in ("Title &amp; more", "What it means.", "a&lt;b", ">0.333<", ">1200<", ">–<"):
        assert part in page
    assert page.count("<tr>") == 3
    assert f"<p>{VIEW}</p>" in page


def test_the_reports_first_page_says_what_models_see_in_the_words_of_the_tables():
    page = (ROOT / "workflow/report/workflow.rst").read_text()
    assert VIEW in " ".join(page.split())


def test_a_header_says_unit_direction_and_meaning(tmp_path):
    frame = pd.DataFrame({"overlap, k = 100": [0.5], "model": ["m"], "R@5, pre": [0.1], "something else": [1]})
    write_html(frame, tmp_path / "t.html", "Title", "Note.")
    page = (tmp_path / "t.html").read_text()
    definition = "k-NN overlap ratio (KNOR): share of an image&#39;s k nearest neighbours that are kept"
    button, unit = '<button type="button">{}</button>', "<small>share, 0 to 1</small></th>"
    assert f'title="{definition}; higher: more is kept">{button.format("overlap, k = 100")}{unit}' in page
    assert f'<th scope="col" title="model of the study">{button.format("model")}</th>' in page
    assert f'among the r nearest; higher: more is found">{button.format("R@5, pre")}{unit}' in page
    assert f'<th scope="col" class="number">{button.format("something else")}</th>' in page


@pytest.mark.parametrize(
    ("p", "at_floor", "text"),
    [(0.0002, True, "<= 0.0002"), (0.0123, False, "0.012"), (1.0, False, "1"), (np.nan, False, "–")],
)
def test_a_p_at_its_floor_is_an_upper_bound(p, at_floor, text):
    assert p_value(p, at_floor=at_floor) == text


def test_adjusted_p_values_are_bounds_where_what_they_adjust_is(tmp_path):
    frame = pd.DataFrame({"p": [0.01, 0.4, np.nan], "p_at_floor": [True, False, False], "q": [0.02, 0.4, np.nan]})
    assert p_values(frame, "p").tolist() == ["<= 0.01", "0.4", None]
    assert p_values(frame, "q", "p_at_floor").tolist() == ["<= 0.02", "0.4", None]
    write_html(pd.DataFrame({"n": [1, 2, 3], "p": p_values(frame, "p")}), tmp_path / "t.html", "Title", "Note.")
    assert "<td>&lt;= 0.01</td>" in (tmp_path / "t.html").read_text()


def test_reported_numbers_stand_beside_the_papers_models_only():
    ours = pd.DataFrame(
        {"dataset": "vizwiz", "n": 1131, "model": ["big", "small", "big", "big"], "k": [10, 10, 100, 7], "overlap": 0.5}
    )
    checkpoints = {"big": "llava-hf/llava-1.5-7b-hf", "small": "workflow/zoo/llava"}
    found = beside(ours, "figure3", ["dataset", "n", "k"], ["overlap"], checkpoints)
    assert found["overlap_reported"].tolist()[0] == 0.534
    assert found["overlap_reported"].tolist()[2] == 0.562
    assert found["overlap_reported"].isna().tolist() == [False, True, False, True]
    assert found.drop(columns="overlap_reported").equals(ours)


def test_every_model_of_the_paper_is_one_of_its_tables():
    assert set(MODELS.values()) == {"llava", "idefics2", "qwen2.5-vl"}
    for checkpoint in MODELS:
        row = pd.DataFrame({"model": ["m"], "metric": ["euclidean"], "stage": ["post"]})
        found = beside(row, "table2_table8", ["metric", "stage"], ["recall_at_1"], {"m": checkpoint})
        assert found["recall_at_1_reported"].notna().all()


def overlap_summary(path, model, overlap):
    row = {"dataset": "vizwiz", "n": 1131, "model": model, "metric": "euclidean", "k": 10, "overlap": overlap}
    row |= {
        "low": overlap - 0.01,
        "high": overlap + 0.01,
        "chance": 10 / 1130,
        "null_low": 0.0,
        "null_high": 0.1,
        "images": 1131,
        "copies": 0,
    }
    row |= {"p_permutation": 1 / 201, "overlap_corrected": overlap, "overlap_paper_convention": overlap}
    pd.DataFrame([row]).to_parquet(path)
    return path


def test_the_overlap_table_of_the_papers_study_carries_its_numbers(tmp_path):
    paths = [overlap_summary(tmp_path / "a", "llava", 0.44), overlap_summary(tmp_path / "b", "mine", 0.2)]
    spec = {"checkpoints": {"llava": "llava-hf/llava-1.5-7b-hf", "mine": "x"}, "confidence": 0.95, "permutations": 200}
    out = {name: tmp_path / name for name in ("csv", "html", "finding")}
    tabulate_overlap.run(summaries=paths, **out, spec=spec)
    table = pd.read_csv(out["csv"])
    assert table["overlap_reported"].tolist()[0] == 0.534
    assert np.isnan(table["overlap_reported"].tolist()[1])
    assert "<td>0.440 [0.430, 0.450]</td>" in out["html"].read_text()
    assert ">0.534<" in out["html"].read_text()
    assert ">&lt;= 0.005<" in out["html"].read_text()
    assert "copies" not in out["finding"].read_text()
    assert "**llava** keeps this share of the 10 nearest neighbours by Euclidean distance" in out["finding"].read_text()
    assert "0.44 [0.43, 0.45] on vizwiz (chance 0.01, p <= 0.005)" in out["finding"].read_text()


@pytest.mark.parametrize(
    ("dataset", "n", "reported"), [("cub", 5794, 0.0834), ("cub", 100, None), ("birds", 5794, None)]
)
def test_the_papers_retrieval_stands_beside_the_whole_of_cub_only(tmp_path, dataset, n, reported):
    rows = []
    for stage in ("pre", "post"):
        row = {"dataset": dataset, "n": n, "classes": 2, "model": "llava", "metric": "euclidean", "stage": stage}
        row |= {"images": n, "copies": 0, "copies_of_other_class": 0}
        for name, value in (
            ("recall_at_1", 0.5),
            ("recall_at_5", 0.5),
            ("recall_at_1_change", 0.0),
            ("recall_at_5_change", 0.0),
            ("overlap_k9", 0.3),
            ("spearman_r5_overlap", 0.1),
            ("partial_r5_overlap", 0.05),
        ):
            row |= {f"{name}{end}": value for end in ("", "_low", "_high")}
        rows.append(row)
    pd.DataFrame(rows).to_parquet(tmp_path / "s")
    out = {name: tmp_path / name for name in ("csv", "html", "finding")}
    checkpoints = {"llava": "llava-hf/llava-1.5-7b-hf"}
    spec = {"metric": "euclidean", "recall": [1, 5], "overlap_k": 9, "checkpoints": checkpoints, "confidence": 0.9}
    tabulate_retrieval.run(summaries=[tmp_path / "s"], **out, spec=spec)
    value = pd.read_csv(out["csv"])["recall_at_1_reported"][0]
    assert value == reported if reported else np.isnan(value)
    page = out["html"].read_text()
    assert ("R@1, pre, reported" in page) == bool(reported)
    assert (">0.0834<" in page) == bool(reported)
    assert "<td>0.300 [0.300, 0.300]</td>" in page
    assert page.index("partial rho, pre") < page.index("raw rho, pre")
    assert "R@5 by Euclidean distance goes from 0.500 [0.500, 0.500] to 0.500" in out["finding"].read_text()
    assert "90% interval for the population" in out["finding"].read_text()


def test_neighbour_lists_come_back(tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 3))
    rankings = {("euclidean", "pre"): rank_neighbours(x, 2), ("euclidean", "post"): rank_neighbours(np.round(x), 2)}
    rankings["cosine", "post"] = rank_neighbours(np.ones((5, 3)), 2)
    write_lists(tmp_path / "lists", NeighbourLists(np.array([*"abcde"]), {"f": "b"}, rankings))
    found = read_lists(tmp_path / "lists")
    assert found.image_ids.tolist() == [*"abcde"]
    assert found.copies == {"f": "b"}
    assert found.counts() == {"n": 5, "images": 6, "copies": 1}
    assert set(found.rankings) == set(rankings)
    for key, ranking in rankings.items():
        assert [part.tolist() for part in found.rankings[key]] == [part.tolist() for part in ranking]


def test_a_copy_that_counts_has_the_embedding_of_its_original():
    lists = NeighbourLists(np.array([*"abc"]), {"c": "a", "d": "b"}, {})
    assert lists.rows_of(np.array([*"dcba"])).tolist() == [3, 2, 3]
    assert lists.counts() == {"n": 3, "images": 4, "copies": 2}


def test_seeds_are_fixed_and_differ_by_purpose():
    assert seed_for(0, "a", "b") == seed_for(0, "a", "b")
    assert len({seed_for(0, "a", "b"), seed_for(0, "ab"), seed_for(1, "a", "b"), seed_for(0, "b", "a")}) == 4
    assert 0 <= seed_for(7, "x") < 2**63


def test_copies_are_told_in_a_sentence():
    table = pd.DataFrame({"dataset": ["a", "b", "c"], "n": [31, 9, 60], "images": [60, 9, 60], "copies": [29, 0, 30]})
    assert about_copies(table) == [
        "On a, 29 of 60 images are copies of another and left out.",
        "On c, 30 of 60 images are copies of another, and counted like all others.",
    ]
