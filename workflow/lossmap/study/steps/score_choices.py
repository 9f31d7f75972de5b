"""Chosen options, right options -> whether each choice is right, and accuracy by category."""

from pathlib import Path

import pandas as pd

from lossmap.data.manifest import read_table
from lossmap.errors import LossmapError
from lossmap.measures.resampling import ratio_interval
from lossmap.measures.seeds import seed_for
from lossmap.study.scoring import beside
from lossmap.study.specs import ScoreChoices


def run(*, predictions: Path, questions: Path, scores: Path, summary: Path, spec: ScoreChoices) -> None:
    """Score every choice: 1 if it is the right option, else 0; then the accuracy of all and of each category.

    A question without options, or whose right option or choice is none of them, is an error. summary: category "all"
    first. chance: accuracy of choosing at random. Intervals are over images, each with all its questions.

    spec: dataset, model, confidence, resamples, seed.
    """
    known = read_table(questions, "questions").set_index("question_id")
    table = beside(predictions, known, questions)
    _refuse(table, predictions, questions)
    table["correct"] = (table["choice"] == table["answer_index"]).astype("int64")
    table["accuracy"] = table["correct"].astype(float)
    table["score"] = "choice_accuracy"
    table[["question_id", "image_id", "category", "score", "correct", "accuracy"]].to_parquet(scores, index=False)

    rows = []
    for category, group in [("all", table), *table.groupby("category", sort=True)]:
        seed = seed_for(spec.seed, "score_choices", spec.dataset, spec.model, category)
        images = group.groupby("image_id", sort=False)["accuracy"].agg(["sum", "size"])
        interval = ratio_interval(images["sum"], images["size"], spec.resamples, spec.confidence, seed)
        row = {"dataset": spec.dataset, "model": spec.model, "category": category, "score": "choice_accuracy"}
        row |= {"images": len(images), "n": len(group), "left_out": len(known) - len(table)}
        row |= dict(zip(("accuracy", "accuracy_low", "accuracy_high"), interval, strict=True))
        rows.append({**row, "chance": (1 / group["options"].map(len)).mean()})
    pd.DataFrame(rows).to_parquet(summary, index=False)


def _refuse(table: pd.DataFrame, predictions: Path, questions: Path) -> None:
    """Raises LossmapError, naming the questions that lack what a score needs."""
    problems = []
    for row in table.itertuples():
        options = len(row.options or [])
        if not options:
            problems.append(f"question {row.question_id}: has no options in {questions}")
        elif pd.isna(row.answer_index):
            problems.append(f"question {row.question_id}: names no right option in {questions}")
        elif not 0 <= row.answer_index < options:
            problems.append(f"question {row.question_id}: right option {row.answer_index} of {options} in {questions}")
        elif not 0 <= row.choice < options:
            problems.append(f"question {row.question_id}: choice {row.choice} of {options} in {predictions}")
    if problems:
        raise LossmapError.listing(
            f"{questions}: {len(problems)} of {len(table)} questions can't be scored; options are counted from 0:",
            problems,
            "Correct the annotations and read the dataset again, or leave it out of choices.",
        )
