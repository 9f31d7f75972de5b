"""Predictions beside what they are scored against: every one of both, or an error that names the entries."""

from pathlib import Path

import pandas as pd

from lossmap.errors import LossmapError
from lossmap.measures.vqa_accuracy import equal_answers, vqa_accuracy, vqa_match

UNTYPED = "(no type)"  # the category of questions of formats without types
# What an item is scored by, as files name it -> in words.
SCORE_NAMES = {
    "vqa_accuracy": "VQA accuracy",
    "vqa_match": "exact match",
    "choice_accuracy": "accuracy of choice",
    "cider": "CIDEr",
}


def beside(predictions: Path, truth: pd.DataFrame, source: Path) -> pd.DataFrame:
    """Predictions in their order, with the columns of `truth` that they lack.

    Parameters: predictions, a Parquet file; truth, one row per item, its index named as a column of the predictions
        (image_id or question_id); source, where truth comes from, for messages.
    Raises: LossmapError if an item is predicted twice, predicted but not in truth, or in truth but not predicted.
    """
    said, key = pd.read_parquet(predictions), truth.index.name
    kind, ids = key.removesuffix("_id"), said[key]
    faults = [
        (ids[ids.duplicated()].unique(), f"predicted more than once in {predictions}"),
        (ids[~ids.isin(truth.index)], f"predicted in {predictions}, but nothing to score it against in {source}"),
        (truth.index[~truth.index.isin(ids)], f"in {source}, but not predicted in {predictions}"),
    ]
    problems = [f"{kind} {item}: {fault}" for items, fault in faults for item in items]
    if problems:
        raise LossmapError.listing(
            f"{predictions}: can't be scored, for a score is of all {kind}s of a dataset:",
            problems,
            "If the dataset has changed since, delete the predictions and run again; else correct the annotations.",
        )
    return said.join(truth[truth.columns.difference(said.columns, sort=False)], on=key)


def score_answer(answer: str, given: list[str], score: str) -> float:
    """Score in [0, 1] of one answer in words, held against annotators' answers. score: vqa_accuracy or vqa_match."""
    measure = vqa_match if score == "vqa_match" else vqa_accuracy
    return measure(equal_answers(answer, given), len(given))


def answer_type(majority: str) -> str:
    """Of a normalised answer, as VQAv2 sorts its own: yes/no, number, or other."""
    if majority in ("yes", "no"):
        return "yes/no"
    return "number" if majority.replace(".", "", 1).isdigit() else "other"
