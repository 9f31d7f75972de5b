"""The scoring steps: what stands in their tables, the rules for empty and missing entries, every refusal."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from specs import checked

from lossmap.__main__ import main
from lossmap.data.manifest import SCHEMAS
from lossmap.errors import LossmapError
from lossmap.measures.cider import cider_d
from lossmap.measures.seeds import seed_for
from lossmap.measures.statistics import bootstrap_mean
from lossmap.study.steps import score_answers, score_captions, score_choices

SPEC = {"dataset": "toy", "model": "m", "confidence": 0.95, "resamples": 200, "seed": 3}
EXACT = checked("score_answers", SPEC | {"score": "vqa_match"})
REFERENCES = [
    ("cat", "A cat sleeps on the mat."),
    ("cat", "The cat's asleep"),
    ("dog", "Two dogs run, fast!"),
    ("dog", "Dogs are running (outside)"),
    ("owl", "An owl"),
]
CAPTIONS = [("owl", ""), ("dog", "two dogs run fast"), ("cat", "A cat sleeps on the mat.")]
QUESTIONS = [
    ("q1", "cat", ["two", "2", *["three"] * 8]),
    ("q2", "cat", ["red"] * 10),
    ("q3", "dog", ["a dog", "Dog", "dog.", *["wolf"] * 7]),
    ("q4", "owl", ["the"] * 10),
]
ANSWERS = [("q3", "dog", "the dog."), ("q1", "cat", "2"), ("q4", "owl", " "), ("q2", "cat", "Red")]
OPTIONS = [  # the right option, from 0, and the category
    ("c1", "cat", ["x", "y"], 0, "colour"),
    ("c2", "cat", ["x", "y", "z", "w"], 3, "number"),
    ("c3", "dog", ["x", "y", "z", "w"], 2, "number"),
    ("c4", "owl", ["x", "y", "z", "w"], 1, None),
]
CHOICES = [("c4", "owl", 1), ("c1", "cat", 0), ("c2", "cat", 1), ("c3", "dog", 2)]


def write_truth(path, name, rows):
    schema = SCHEMAS[name]
    pq.write_table(pa.Table.from_pylist([{key: row.get(key) for key in schema.names} for row in rows], schema), path)


def captions_at(folder, references=REFERENCES, said=CAPTIONS):
    write_truth(
        folder / "truth", "captions", [dict(zip(("image_id", "caption"), row, strict=True)) for row in references]
    )
    table = pd.DataFrame(said, columns=["image_id", "text"]).assign(prompt="Describe.", revision="r")
    table.to_parquet(folder / "said", index=False)
    files = {"predictions": folder / "said", "references": folder / "truth", "spec": checked("score_captions", SPEC)}
    return files | {"scores": folder / "scores", "summary": folder / "summary"}


def questions_at(folder, rows, said, columns, spec):
    rows = [{"question": "?", "answers": ["x"] * 10, **row} for row in rows]
    write_truth(folder / "truth", "questions", rows)
    pd.DataFrame(said, columns=columns).to_parquet(folder / "said", index=False)
    files = {"predictions": folder / "said", "questions": folder / "truth"}
    return files | {"scores": folder / "scores", "summary": folder / "summary", "spec": spec}


def answers_at(folder, questions=QUESTIONS, said=ANSWERS):
    rows = [dict(zip(("question_id", "image_id", "answers"), row, strict=True)) for row in questions]
    spec = checked("score_answers", SPEC | {"score": "vqa_accuracy"})
    return questions_at(folder, rows, said, ["question_id", "image_id", "text"], spec)


def choices_at(folder, questions=OPTIONS, said=CHOICES):
    names = ("question_id", "image_id", "options", "answer_index", "category")
    rows = [dict(zip(names, row, strict=True)) for row in questions]
    return questions_at(folder, rows, said, ["question_id", "image_id", "choice"], checked("score_choices", SPEC))


def tables(files):
    return pd.read_parquet(files["scores"]), pd.read_parquet(files["summary"])


def seed_of(step, *more):
    return seed_for(SPEC["seed"], step, "toy", "m", *more)


def test_captions_are_scored_in_both_conventions(tmp_path):
    files = captions_at(tmp_path)
    score_captions.run(**files)
    scores, summary = tables(files)
    assert scores.columns.tolist() == ["image_id", "text", "cider", "cider_raw", "reference_words"]
    assert scores["image_id"].tolist() == ["owl", "dog", "cat"]
    assert scores["text"].tolist() == ["", "two dogs run fast", "A cat sleeps on the mat."]
    tokens = [
        [["an", "owl"]],
        [["two", "dogs", "run", "fast"], ["dogs", "are", "running", "-lrb-", "outside", "-rrb-"]],
        [["a", "cat", "sleeps", "on", "the", "mat"], ["the", "cat", "'s", "asleep"]],
    ]
    said = [[], tokens[1][0], tokens[2][0]]
    np.testing.assert_allclose(scores["cider"], 100 * cider_d(said, tokens), rtol=1e-12)
    raw = [[caption.split() for image, caption in REFERENCES if image == name] for name in ("owl", "dog", "cat")]
    by_blanks = 100 * cider_d([[], *(text.split() for _, text in CAPTIONS[1:])], raw)
    np.testing.assert_allclose(scores["cider_raw"], by_blanks, rtol=1e-12)
    assert scores["cider"][0] == scores["cider_raw"][0] == 0
    assert scores["reference_words"].tolist() == [2, 5, 5]
    assert scores["cider"][1] > 500 > scores["cider_raw"][1] > 0  # "run," and "fast!" are other strings

    row = summary.iloc[0]
    assert (row["dataset"], row["model"], row["n"], row["left_out"], row["empty"]) == ("toy", "m", 3, 0, 1)
    interval = bootstrap_mean(scores["cider"], 200, 0.95, seed_of("score_captions"))
    assert (row["cider"], row["cider_low"], row["cider_high"]) == interval
    assert row["cider"] == pytest.approx(scores["cider"].mean())
    assert row["cider_std"] == pytest.approx(np.std(scores["cider"]))
    assert row["cider_paper_convention"] == pytest.approx(scores["cider_raw"].mean())


def test_answers_are_scored_in_both_conventions(tmp_path):
    files = answers_at(tmp_path)
    score_answers.run(**files)
    scores, summary = tables(files)
    assert scores.columns.tolist() == ["question_id", "image_id", "text", "score", "accuracy", "accuracy_simple"]
    assert scores["question_id"].tolist() == ["q3", "q1", "q4", "q2"]
    assert scores["accuracy"].tolist() == pytest.approx([0.9, 0.6, 0, 1])  # an empty answer equals no "the"
    # As the paper's code compares: articles and number words stay.
    assert scores["accuracy_simple"].tolist() == pytest.approx([0, 1 / 3, 0, 1])
    row = summary.iloc[0]
    assert row[["images", "n", "left_out", "empty"]].tolist() == [3, 4, 0, 1]
    assert row["accuracy"] == pytest.approx(2.5 / 4)
    assert row["accuracy_paper_convention"] == pytest.approx((1 + 1 / 3) / 4)


def test_exact_match_takes_one_answer_and_names_itself(tmp_path):
    one = [("q1", "cat", ["Two"]), ("q2", "cat", ["red"]), ("q3", "dog", ["a dog", "wolf"]), ("q4", "owl", ["the"])]
    files = answers_at(tmp_path, one)  # "2" is "Two", "Red" is "red", "the dog." is one of two, blanks are nothing
    score_answers.run(**{**files, "spec": EXACT})
    scores, summary = tables(files)
    assert scores.set_index("question_id")["accuracy"].to_dict() == {"q1": 1, "q2": 1, "q3": 1, "q4": 0}
    assert scores["score"].unique().tolist() == summary["score"].tolist() == ["vqa_match"]
    assert scores["accuracy_simple"].isna().all()  # no convention of the paper
    assert summary["accuracy"][0] == 0.75
    assert np.isnan(summary["accuracy_paper_convention"][0])
    with pytest.raises(LossmapError, match="1 of 4 questions can't be scored, which takes at least 1 annotator"):
        score_answers.run(**{**answers_at(tmp_path, [("q1", "cat", []), *one[1:]]), "spec": EXACT})


def test_the_interval_of_answers_is_over_images(tmp_path):
    """Of two images, one with nine right questions, one with a wrong one, a draw has 18, 9 or no right answers."""
    questions = [(f"q{i}", "many" if i else "one", ["yes"] * 10) for i in range(10)]
    said = [(f"q{i}", "many" if i else "one", "yes" if i else "no") for i in range(10)]
    files = answers_at(tmp_path, questions, said)
    score_answers.run(**files)
    row = tables(files)[1].iloc[0]
    assert (row["accuracy"], row["accuracy_low"], row["accuracy_high"]) == (0.9, 0, 1)


def test_with_one_question_per_image_the_interval_is_the_usual_one(tmp_path):
    questions = [(f"q{i}", f"i{i}", ["yes"] * (i % 5) + ["no"] * (10 - i % 5)) for i in range(30)]
    files = answers_at(tmp_path, questions, [(question, image, "yes") for question, image, _ in questions])
    score_answers.run(**files)
    scores, summary = tables(files)
    usual = bootstrap_mean(scores["accuracy"], 200, 0.95, seed_of("score_answers"))
    row = summary.iloc[0]
    np.testing.assert_allclose([row["accuracy"], row["accuracy_low"], row["accuracy_high"]], usual, rtol=1e-12)


def test_choices_are_scored_overall_and_by_category(tmp_path):
    files = choices_at(tmp_path)
    score_choices.run(**files)
    scores, summary = tables(files)
    assert scores.columns.tolist() == ["question_id", "image_id", "category", "score", "correct", "accuracy"]
    assert scores["question_id"].tolist() == ["c4", "c1", "c2", "c3"]
    assert scores["correct"].tolist() == [1, 1, 0, 1]
    assert scores["accuracy"].tolist() == [1.0, 1.0, 0.0, 1.0]
    assert scores["category"].isna().tolist() == [True, False, False, False]
    assert summary["category"].tolist() == ["all", "colour", "number"]
    assert summary["n"].tolist() == [4, 1, 2]
    assert summary["images"].tolist() == [3, 1, 2]
    assert summary["left_out"].tolist() == [0, 0, 0]
    assert summary["accuracy"].tolist() == [0.75, 1, 0.5]
    assert summary["chance"].tolist() == [(1 / 2 + 3 / 4) / 4, 1 / 2, 1 / 4]
    assert (summary["accuracy_low"] <= summary["accuracy"]).all()
    assert (summary["accuracy_high"] >= summary["accuracy"]).all()


def test_a_dataset_without_categories_has_one_row(tmp_path):
    files = choices_at(tmp_path, [(*row[:4], None) for row in OPTIONS])
    score_choices.run(**files)
    assert tables(files)[1]["category"].tolist() == ["all"]


@pytest.mark.parametrize(("name", "at"), [("captions", captions_at), ("answers", answers_at), ("choices", choices_at)])
def test_two_runs_give_the_same_bytes(tmp_path, name, at):
    files = at(tmp_path)
    arguments = [f"score_{name}", "--spec", files.pop("spec").model_dump_json()]
    found = []
    for _ in range(2):
        assert main([*arguments, *(str(part) for key, path in files.items() for part in (f"--{key}", path))]) == 0
        found.append((files["scores"].read_bytes(), files["summary"].read_bytes()))
    assert found[0] == found[1]


def test_order_of_predictions_changes_no_score(tmp_path):
    scored = []
    for name, said in (("a", CAPTIONS), ("b", CAPTIONS[::-1])):
        (tmp_path / name).mkdir()
        files = captions_at(tmp_path / name, said=said)
        score_captions.run(**files)
        scored.append(tables(files)[0].set_index("image_id").sort_index()[["cider", "cider_raw"]])
    np.testing.assert_allclose(*scored, rtol=1e-12)


def test_captions_without_references_and_references_without_caption_are_named(tmp_path):
    with pytest.raises(
        LossmapError, match="image fox: predicted in .*said, but nothing to score it against in .*truth"
    ):
        score_captions.run(**captions_at(tmp_path, said=[*CAPTIONS, ("fox", "A fox.")]))
    with pytest.raises(LossmapError, match="image cat: in .*truth, but not predicted in .*said") as caught:
        score_captions.run(**captions_at(tmp_path, said=CAPTIONS[:2]))
    assert "can't be scored, for a score is of all images of a dataset" in str(caught.value)
    assert "delete the predictions and run again" in str(caught.value)
    with pytest.raises(LossmapError, match="image owl: predicted more than once in .*said"):
        score_captions.run(**captions_at(tmp_path, said=[*CAPTIONS, CAPTIONS[0]]))
    assert not (tmp_path / "scores").exists()


def test_questions_without_answers_or_with_few_are_named(tmp_path):
    questions = [("q1", "cat", []), *QUESTIONS[1:3], ("q4", "owl", ["yes"] * 3)]
    with pytest.raises(LossmapError, match="2 of 4 questions can't be scored, which takes at least 4") as caught:
        score_answers.run(**answers_at(tmp_path, questions))
    assert "question q1: 0 answers\n  - question q4: 3 answers\nCorrect the annotations" in str(caught.value)
    with pytest.raises(LossmapError, match="question q5: predicted in"):
        score_answers.run(**answers_at(tmp_path, said=[*ANSWERS, ("q5", "cat", "?")]))
    with pytest.raises(LossmapError, match="question q2: in .*truth, but not predicted"):
        score_answers.run(**answers_at(tmp_path, said=ANSWERS[:3]))


@pytest.mark.parametrize(
    ("question", "choice", "message"),
    [
        (("c1", "cat", None, 0, "colour"), 0, "question c1: has no options in .*truth"),
        (("c1", "cat", ["x", "y"], None, "colour"), 0, "question c1: names no right option in .*truth"),
        (("c1", "cat", ["x", "y"], 2, "colour"), 0, "question c1: right option 2 of 2 in .*truth"),
        (("c1", "cat", ["x", "y"], -1, "colour"), 0, "question c1: right option -1 of 2 in .*truth"),
        (OPTIONS[0], 2, "question c1: choice 2 of 2 in .*said"),
        (OPTIONS[0], -1, "question c1: choice -1 of 2 in .*said"),
    ],
)
def test_unknown_options_are_named(tmp_path, question, choice, message):
    said = [("c1", "cat", choice), *(row for row in CHOICES if row[0] != "c1")]
    with pytest.raises(LossmapError, match=message) as caught:
        score_choices.run(**choices_at(tmp_path, [question, *OPTIONS[1:]], said))
    assert "1 of 4 questions can't be scored; options are counted from 0" in str(caught.value)
