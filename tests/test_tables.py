"""Tables say the same thing in each of their forms, and the paper's numbers stand beside the right rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from specs import PLAIN_FIGURES

from lossmap.measures.neighbours import rank_neighbours
from lossmap.measures.seeds import seed_for
from lossmap.study.columns import column, titled
from lossmap.study.exhibits import table2
from lossmap.study.neighbour_lists import NeighbourLists, read_lists, write_lists
from lossmap.study.paper import MODELS, beside
from lossmap.study.steps import make_exhibit
from lossmap.study.tables import about_copies, cells, how_seen, p_value, p_values, write_csv, write_page

ROOT = Path(__file__).parents[1]

FRAME = pd.DataFrame({"model": ["a<b", "c"], "n": [3, 1200], "overlap": [1 / 3, np.nan]})


def test_a_csv_has_six_digits_and_reads_back(tmp_path):
    write_csv(FRAME, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "model,n,overlap\na<b,3,0.333333\nc,1200,\n"


def test_a_page_shows_every_cell_and_escapes_text(tmp_path):
    write_page(
        FRAME, tmp_path / "t.html", "Title & more", "<p>It says.</p>", "<p>In full.</p>", "What it means.", "Seen so."
    )
    page = (tmp_path / "t.html").read_text()
    for part in (
        "Title &amp; more",
        "<p>It says.</p>",
        "<p>In full.</p>",
        "What it means.",
        "a&lt;b",
        ">0.333<",
        ">1200<",
        ">–<",
    ):
        assert part in page
    assert page.count("<tr>") == 3
    assert "<p>Seen so.</p>" in page


def test_how_images_are_seen_is_told_of_each_model():
    said = how_seen({"a": "processor", "b": "square", "c": {"tiles": 4, "longest_edge": 1456}, "d": "processor"})
    assert said == (
        "How images are seen. As the model's own image processor shows them, in one view of a fixed size, in the"
        " image's own shape or in tiles: a, d. So, within limits: c (tiles 4, longest_edge 1,456). In one square view"
        " of each image, which is not how the model is used: b."
    )
    assert "limits" not in how_seen({"a": "processor"})


def test_a_header_says_unit_direction_and_meaning(tmp_path):
    frame = pd.DataFrame({"overlap, k = 100": [0.5], "model": ["m"], "R@5, pre": [0.1], "something else": [1]})
    write_page(frame, tmp_path / "t.html", "Title", "", "", "Note.")
    page = (tmp_path / "t.html").read_text()
    definition = "k-NN overlap ratio (KNOR): share of an image&#39;s k nearest neighbours that are preserved"
    button, unit = '<button type="button">{}</button>', "<small>share, 0 to 1</small></th>"
    assert f'title="{definition}; higher: more is preserved">{button.format("overlap, k = 100")}{unit}' in page
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
    write_page(pd.DataFrame({"n": [1, 2, 3], "p": p_values(frame, "p")}), tmp_path / "t.html", "Title", "", "", "Note.")
    assert '<td class="number">&lt;= 0.01</td>' in (tmp_path / "t.html").read_text()


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
        "std": 0.1,
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
    make_exhibit.run(
        "figure3", results=tmp_path, inputs=[f"summaries={path}" for path in paths], settings=spec, spec=PLAIN_FIGURES
    )
    table, page, caption = (
        pd.read_csv(tmp_path / "tables/figure3.csv"),
        (tmp_path / "tables/figure3.html").read_text(),
        (tmp_path / "tables/figure3.rst").read_text(),
    )
    assert table["overlap_reported"].tolist()[0] == 0.534
    assert np.isnan(table["overlap_reported"].tolist()[1])
    assert '<td class="number">0.440 [0.430, 0.450]</td>' in page
    assert ">0.534<" in page
    assert ">&lt;= 0.005<" in page
    assert "copies" not in caption
    assert "**llava** keeps this share of the 10 nearest neighbours by Euclidean distance" in caption
    assert "0.44 [0.43, 0.45] on vizwiz (chance 0.01, p <= 0.005)" in caption


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
    checkpoints = {"llava": "llava-hf/llava-1.5-7b-hf"}
    spec = {"metric": "euclidean", "recall": [1, 5], "overlap_k": 9, "checkpoints": checkpoints, "confidence": 0.9}
    settings = table2.Settings(**spec)
    table = table2.table(settings, [tmp_path / "s"])
    value = table["recall_at_1_reported"][0]
    assert value == reported if reported else np.isnan(value)
    page = table2.page(table, settings)
    assert ("R@5, before, reported" in page) == bool(reported)
    assert page.get("R@5, before, reported", [None])[0] == ("0.2182" if reported else None)
    assert page["overlap, k = 9"].tolist() == ["0.300 [0.300, 0.300]"]
    assert page["partial rho, before"].tolist() == ["0.05 [0.05, 0.05]"]
    findings = "\n".join(table2.findings(table, settings))
    assert "R@5 by Euclidean distance goes from 0.500 [0.500, 0.500] to 0.500" in findings
    assert "90% interval for the population" in findings


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
        "- On a, 29 of 60 images are copies of another and left out.",
        "- On c, 30 of 60 images are copies of another, and counted like all others.",
    ]


def test_cells_hold_values_with_their_intervals_words_and_bounds():
    table = pd.DataFrame({"metric": ["euclidean"], "overlap": [0.5], "overlap_low": [0.4], "overlap_high": [0.6]})
    table = table.assign(overlap_p=0.005, overlap_p_at_floor=True, null_low=0.01, null_high=0.02, chance=0.1234)
    shown = cells(table, ["metric", "overlap", "overlap_p", "null", "chance", "classes"])
    assert {title: values.tolist() for title, values in shown.items()} == {
        "metric": ["Euclidean distance"],
        "overlap": ["0.500 [0.400, 0.600]"],
        "overlap, p": ["<= 0.005"],
        "by permutation": ["0.010 to 0.020"],
        "chance": ["0.123"],
    }


def test_a_column_is_known_by_its_name_its_numbers_and_its_suffix():
    assert column("recall_at_5").title == "R@r"
    assert column("overlap_k100_low").help.startswith("lower end of the interval: overlap of the k nearest")
    assert column("recall_at_1_change_reported").title == "R@r, change, reported"
    assert column("nobody") is None
    assert titled("R@5, before").unit == "share, 0 to 1"
