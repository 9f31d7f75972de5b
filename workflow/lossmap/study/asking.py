"""Questions of a study's datasets, as readers take them."""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from lossmap.data.manifest import read_table
from lossmap.errors import LossmapError
from lossmap.measures.vqa_accuracy import normalise_answer
from lossmap.readers.asked import Lexicon, padded
from lossmap.readers.questions import Questions, majority_answers
from lossmap.study.scoring import UNTYPED
from lossmap.vlm.words import Words


def read_questions(path: Path, store: xr.Dataset, task: str) -> pd.DataFrame:
    """The questions of a dataset, with image, the number of each one's image in a store, and category filled in.

    Parameters: task, "answers" or "choices". Of answers, majority is the normalised answer that most annotators gave.
    Raises: LossmapError if there are none, an image has no embeddings, or a question has no right option.
    """
    table = read_table(path, "questions")
    if table.empty:
        raise LossmapError(f"{path}: holds no questions. Leave this dataset out of readers.")
    row_of = {image: row for row, image in enumerate(store["image_id"].values.tolist())}
    if lost := [f"question {q}: image {i}" for q, i in table[["question_id", "image_id"]].values if i not in row_of]:
        raise LossmapError.listing(
            f"{path}: these questions' images have no embeddings:", lost, "Read the dataset and extract again."
        )
    table["image"] = table["image_id"].map(row_of)
    table["category"] = table["category"].fillna(UNTYPED)
    if task == "answers":
        table["majority"] = majority_answers([[normalise_answer(one) for one in given] for given in table["answers"]])
    elif bad := table.loc[table["answer_index"].isna() | table["options"].isna(), "question_id"].tolist():
        raise LossmapError.listing(
            f"{path}: these questions have no right option:",
            bad,
            "Correct the annotations, or leave it out of readers.",
        )
    return table


def as_questions(table: pd.DataFrame, known: list[str] | None) -> Questions:
    """The same for readers. known: the answers that they choose among; None where each question has its options."""
    if known is None:
        texts = [[f"{row.question} {option}" for option in row.options] for row in table.itertuples()]
        targets = table["answer_index"].to_numpy(dtype=np.int64)
    else:
        number = {answer: i for i, answer in enumerate(known)}
        texts = [[question] for question in table["question"]]
        targets = np.array([number.get(answer, -1) for answer in table["majority"]], dtype=np.int64)
    return Questions(table["image"].to_numpy(dtype=np.int64), texts, targets, table["category"].to_numpy(dtype=str))


def lexicon_of(questions: Questions, words: Words) -> Lexicon:
    """The words of questions, as a model's own tokens."""
    distinct = list(dict.fromkeys(text for texts in questions.texts for text in texts))
    tokens = dict(zip(distinct, words.tokens(distinct), strict=True))
    return padded([[tokens[text] for text in texts] for texts in questions.texts], words.vectors)
