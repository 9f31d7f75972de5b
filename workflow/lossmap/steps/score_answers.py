"""Answers in a model's words, annotators' answers -> VQA accuracy of each and of all."""

from pathlib import Path

import pandas as pd

from lossmap.data.manifest import read_table
from lossmap.errors import LossmapError
from lossmap.measures.resampling import ratio_interval
from lossmap.measures.vqa_accuracy import (
    ENOUGH,
    equal_answers,
    normalise_as_paper,
    simple_vqa_accuracy,
    vqa_accuracy,
)
from lossmap.scoring import beside
from lossmap.seeds import seed_for


def run(*, predictions: Path, questions: Path, scores: Path, summary: Path, spec: dict) -> None:
    """Score the answer to every question by VQA accuracy, in [0, 1].

    accuracy: the official, which leaves out each annotator in turn. accuracy_simple: the paper's, min(equal / 3, 1),
    of strings normalised as by its code.
    An empty answer scores 0. A question with fewer than four annotators' answers, by which none can be fully right,
    is an error. The interval is over images, each with all its questions.

    spec: dataset, model, confidence, resamples, seed.
    """
    known = read_table(questions, "questions").set_index("question_id")
    few = {question: len(answers) for question, answers in known["answers"].items() if len(answers) <= ENOUGH}
    if few:
        raise LossmapError.listing(
            f"{questions}: {len(few)} of {len(known)} questions can't be scored by VQA accuracy, which takes at least"
            f" {ENOUGH + 1} annotators' answers:",
            [f"question {question}: {count} answers" for question, count in few.items()],
            "Correct the annotations, or leave this dataset out of answers.",
        )
    table = beside(predictions, known, questions)
    counts = [len(answers) for answers in table["answers"]]
    equal = list(map(equal_answers, table["text"], table["answers"]))
    as_paper = [equal_answers(*row, normalise_as_paper) for row in zip(table["text"], table["answers"], strict=True)]
    table["accuracy"] = list(map(vqa_accuracy, equal, counts))
    table["accuracy_simple"] = list(map(simple_vqa_accuracy, as_paper, counts))
    table[["question_id", "image_id", "text", "accuracy", "accuracy_simple"]].to_parquet(scores, index=False)

    seed = seed_for(spec["seed"], "score_answers", spec["dataset"], spec["model"])
    images = table.groupby("image_id", sort=False)["accuracy"].agg(["sum", "size"])
    interval = ratio_interval(images["sum"], images["size"], spec["resamples"], spec["confidence"], seed)
    row = {
        "dataset": spec["dataset"],
        "model": spec["model"],
        "images": len(images),
        "n": len(table),
        "left_out": len(known) - len(table),
        "empty": int((table["text"].str.strip() == "").sum()),
        **dict(zip(("accuracy", "accuracy_low", "accuracy_high"), interval, strict=True)),
        "accuracy_paper_convention": table["accuracy_simple"].mean(),
    }
    pd.DataFrame([row]).to_parquet(summary, index=False)
