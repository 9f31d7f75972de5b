"""Scores of answers and choices in one table: hand counts, chance, and what is said about them."""

import numpy as np
import pandas as pd
import pytest
from specs import PLAIN_FIGURES, checked

from lossmap.data.manifest import Manifest, make_table, write_manifest
from lossmap.study.steps import make_exhibit, score_answers, score_choices

SPEC = {"dataset": "some", "model": "one", "score": "vqa_accuracy", "confidence": 0.95, "resamples": 500, "seed": 0}
RED = ["red"] * 3 + ["Red."] + ["dark red"] * 2 + ["Blue"] + ["blue", "green", "grey"]
# question_id, image_id, question, answers, options, answer_index, category, mask_path
SPOKEN = [
    ("q0", "i0", "Which color?", RED, None, None, None, None),
    ("q1", "i0", "Which other color?", RED, None, None, None, None),
    ("q2", "i0", "And which?", RED, None, None, None, None),
    ("q3", "i1", "And here?", RED, None, None, None, None),
]
TEXTS = ["RED.", "blue", "green", ""]  # 4, 2, 1 and no annotators agree
CHOSEN = [
    ("c0", "i0", "?", ["x"], ["x", "y", "z", "w"], 0, "Colors", None),
    ("c1", "i0", "?", ["y"], ["x", "y", "z", "w"], 1, "Colors", None),
    ("c2", "i1", "?", ["y"], ["x", "y"], 1, "Numbers", None),
    ("c3", "i2", "?", ["z"], ["x", "y", "z", "w"], 2, None, None),
]


def save_questions(folder, rows):
    paths = {name: folder / f"{name}.parquet" for name in ("images", "captions", "questions")}
    tables = {"images": make_table("images", []), "captions": make_table("captions", [])}
    manifest = Manifest(**tables, questions=make_table("questions", rows), format="vizwiz")
    write_manifest(manifest, **paths, summary=folder / "manifest.json")
    return paths["questions"]


def run(folder, step, rows, predictions, **spec):
    """Score predictions, a frame, against questions. Returns the scores and the summary."""
    predictions.to_parquet(folder / "predictions.parquet")
    out = {"scores": folder / "scores.parquet", "summary": folder / "summary.parquet"}
    questions, name = save_questions(folder, rows), step.__name__.rpartition(".")[2]
    settings = {key: value for key, value in (SPEC | spec).items() if key != "score" or step is score_answers}
    step.run(predictions=folder / "predictions.parquet", questions=questions, **out, spec=checked(name, settings))
    return pd.read_parquet(out["scores"]), pd.read_parquet(out["summary"])


def spoken(rows=SPOKEN, texts=TEXTS):
    ids = {"question_id": [row[0] for row in rows], "image_id": [row[1] for row in rows]}
    return pd.DataFrame({**ids, "prompt": "?", "text": texts, "token_ids": [[1]] * len(rows), "revision": "r"})


def chosen(choices, rows=CHOSEN):
    ids = {"question_id": [row[0] for row in rows], "image_id": [row[1] for row in rows]}
    return pd.DataFrame({**ids, "prompt": "?", "choice": choices, "revision": "r"})


def test_random_choices_score_chance(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"c{i}", f"i{i}", "?", ["x"], list("xyzw"), int(rng.integers(4)), None, None) for i in range(2000)]
    _, summary = run(tmp_path, score_choices, rows, chosen(rng.integers(0, 4, 2000), rows))
    assert summary["accuracy_low"][0] < summary["chance"][0] == 0.25 < summary["accuracy_high"][0]
    assert summary["accuracy_high"][0] - summary["accuracy_low"][0] == pytest.approx(2 * 1.96 * 0.0097, rel=0.1)


def tabulate(folder, *, score="vqa_accuracy", **summaries):
    """CSV, page and caption of exhibit scores. summaries: task -> summary."""
    inputs = []
    for task, summary in summaries.items():
        summary.to_parquet(folder / f"{task}.parquet")
        inputs.append(f"{task}={folder / task}.parquet")
    settings = {"score": score, "confidence": 0.95}
    make_exhibit.run("scores", results=folder, inputs=inputs, settings=settings, spec=PLAIN_FIGURES)
    table, page, caption = (folder / f"tables/scores.{ending}" for ending in ("csv", "html", "rst"))
    return pd.read_csv(table), page.read_text(), caption.read_text()


def test_one_table_of_answers_and_choices(tmp_path):
    _, answers = run(tmp_path, score_answers, SPOKEN, spoken())
    _, choices = run(tmp_path, score_choices, CHOSEN, chosen([0, 2, 1, 2]))
    table, page, finding = tabulate(tmp_path, answers=answers, choices=choices)
    assert table["task"].tolist() == ["answers", "choices", "choices", "choices"]
    assert table["category"].tolist() == ["all", "all", "Colors", "Numbers"]
    assert table["scored"].tolist() == ["vqa_accuracy", *["choice_accuracy"] * 3]
    assert table["accuracy"].tolist() == pytest.approx([1.9 / 4, 0.75, 0.5, 1])
    assert table["questions"].tolist() == [4, 4, 2, 1]
    assert table["left_out"].tolist() == [0, 0, 0, 0]
    assert table["empty"].fillna(-1).tolist() == [1, -1, -1, -1]
    assert table["chance"].fillna(-1).tolist() == [-1, 0.3125, 0.25, 0.5]
    assert table["accuracy_paper_convention"].fillna(-1).tolist() == [0.5, -1, -1, -1]
    assert "0.475 [0.000, 0.633]</td>" in page
    assert '<td class="number">1</td>' in page
    assert "nan" not in page
    assert finding.split("scores 0.\n\n")[1].splitlines() == [
        "- **one** on some: VQA accuracy 0.47 [0.00, 0.63] over 4 questions, 1 of them without an answer.",
        "- **one** on some: chooses the right option for 0.75 [0.50, 1.00] of 4 questions (chance 0.31); best at "
        "Numbers (1.00), worst at Colors (0.50).",
        "",
        "In brackets: 95% bootstrap interval over images.",
    ]


def test_exact_match_is_named_wherever_it_stands(tmp_path):
    _, answers = run(tmp_path, score_answers, SPOKEN, spoken(), score="vqa_match")
    table, page, finding = tabulate(tmp_path, answers=answers, score="vqa_match")
    assert table["scored"].tolist() == ["vqa_match"]
    assert table["accuracy"].tolist() == [0.75]  # three of four answers are some annotator's
    assert "<td>exact match</td>" in page
    assert "convention</th>" not in page
    assert "exact match with any annotator's answer, and choices" in finding
    assert "\n- **one** on some: exact match 0.75 [" in finding


def test_a_score_whose_interval_reaches_chance_is_said_to(tmp_path):
    _, choices = run(tmp_path, score_choices, CHOSEN, chosen([1, 2, 1, 1]))
    table, page, finding = tabulate(tmp_path, choices=choices)
    assert "of 4 questions (chance 0.31: not clearly better)" in finding
    assert "paper" not in page.split("<table>")[1]  # nothing of answers where there are none
    assert len(table) == 3
