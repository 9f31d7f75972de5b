"""Answers in a model's words, annotators' answers -> VQA accuracy, or exact match, of each and of all."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.data.manifest import read_table
from lossmap.errors import LossmapError
from lossmap.measures.resampling import ratio_interval
from lossmap.measures.seeds import seed_for
from lossmap.measures.vqa_accuracy import ENOUGH, equal_answers, normalise_as_paper, simple_vqa_accuracy
from lossmap.study.scoring import beside, score_answer
from lossmap.study.specs import ScoreAnswers


def run(*, predictions: Path, questions: Path, scores: Path, summary: Path, spec: ScoreAnswers) -> None:
    """Score the answer to every question, in [0, 1], by the score that the study names.

    vqa_accuracy: the official, which leaves out each annotator in turn; a question with fewer than four annotators'
    answers, by which none can be fully right, is an error. vqa_match: 1 if any annotator gave the answer. Both compare
    by the official normalisation. Column accuracy holds either, column score its name; accuracy_simple, beside VQA
    accuracy, the paper's convention: min(equal / 3, 1) of strings normalised as by its code.
    An empty answer scores 0. The interval is over images, each with all its questions.

    spec: dataset, model, score, confidence, resamples, seed.
    """
    known = read_table(questions, "questions").set_index("question_id")
    _refuse_few(known["answers"], questions, ENOUGH + 1 if spec.score == "vqa_accuracy" else 1)
    table = beside(predictions, known, questions)
    pairs = list(zip(table["text"], table["answers"], strict=True))
    table["score"], table["accuracy_simple"] = spec.score, np.nan
    table["accuracy"] = [score_answer(*pair, spec.score) for pair in pairs]
    if spec.score == "vqa_accuracy":
        as_paper = [equal_answers(*pair, normalise_as_paper) for pair in pairs]
        table["accuracy_simple"] = list(map(simple_vqa_accuracy, as_paper, map(len, table["answers"])))
    table[["question_id", "image_id", "text", "score", "accuracy", "accuracy_simple"]].to_parquet(scores, index=False)

    seed = seed_for(spec.seed, "score_answers", spec.dataset, spec.model)
    images = table.groupby("image_id", sort=False)["accuracy"].agg(["sum", "size"])
    interval = ratio_interval(images["sum"], images["size"], spec.resamples, spec.confidence, seed)
    row = {
        "dataset": spec.dataset,
        "model": spec.model,
        "score": spec.score,
        "images": len(images),
        "n": len(table),
        "left_out": len(known) - len(table),
        "empty": int((table["text"].str.strip() == "").sum()),
        **dict(zip(("accuracy", "accuracy_low", "accuracy_high"), interval, strict=True)),
        "accuracy_paper_convention": table["accuracy_simple"].mean(),
    }
    pd.DataFrame([row]).to_parquet(summary, index=False)


def _refuse_few(answers: pd.Series, questions: Path, least: int) -> None:
    """Raises LossmapError, naming the questions that have fewer answers than the score takes."""
    few = {question: len(given) for question, given in answers.items() if len(given) < least}
    if few:
        raise LossmapError.listing(
            f"{questions}: {len(few)} of {len(answers)} questions can't be scored, which takes at least {least}"
            f" annotators' answers:",
            [f"question {question}: {count} answers" for question, count in few.items()],
            "Correct the annotations, set answers: score: vqa_match, which takes one answer, or leave this dataset out"
            " of answers.",
        )
