"""The steps of readers on toy embeddings: multiple choice, and questions whose answer no reader knows."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from golden_products import asked_openly, reproducible, shown
from specs import checked

from lossmap.data.manifest import SCHEMAS, make_table
from lossmap.readers.asked import Lexicon
from lossmap.reconstruct.saving import load_tensors
from lossmap.study.steps import measure_where_lost, read_answers, train_readers

NETWORKS = {"linear": {"blocks": 0, "width": 8, "heads": 2, "dropout": 0.0}}
TRAINING = {"epochs": 3, "questions": 6, "learning_rate": 0.01, "weight_decay": 0.01, "clip": 1.0, "patience": 9}
TRAINING |= {"buffer": 32, "memory": 10**9, "threads": 1, "checkpoint_minutes": 10}
MEASURED = {"dataset": "toy", "model": "toy", "right": 0.5, "networks": ["linear"], "settled_within": 0.02}
MEASURED |= {"confidence": 0.95, "resamples": 50, "seed": 0}


OPTIONS = {f"q{i}": ["red", "green", "image", "one"][: 2 + 2 * (i % 2)] for i in range(8)}


def asked_with_options(folder):
    """Two questions about each image, of two or four options, of which the first is right."""
    rows = [
        (name, f"image-{i % 4}", "Which one is red ?", ["red"], options, 0, None, None)
        for i, (name, options) in enumerate(OPTIONS.items())
    ]
    path = folder / "asked.parquet"
    table = pa.Table.from_pandas(make_table("questions", rows), SCHEMAS["questions"], preserve_index=False)
    pq.write_table(table, path)
    return path


def measured(folder, task, asked, answers, scores):
    """All three steps: what every reader answers, and the summary. scores: question -> the model's."""
    index, model = shown(folder, "llava", speaking=True)
    asked = asked(folder)
    how = {**model, "task": task, "seed": 0}
    files = {name: folder / name for name in ("readers", "held_out", "history")}
    with reproducible():
        train_readers.run(
            embeddings=index,
            questions=asked,
            **files,
            spec=checked(
                "train_readers",
                {
                    **how,
                    "answers": answers,
                    "networks": NETWORKS,
                    "seeds": [0, 1],
                    "held_out": 0.25,
                    "controls": ["pooling"],
                }
                | {"training": TRAINING},
            ),
        )
        read_answers.run(
            embeddings=index,
            questions=asked,
            readers=files["readers"],
            readings=folder / "readings",
            spec=checked("read_answers", {**how, "dataset": "toy"}),
        )
    pd.DataFrame({"question_id": list(scores), "accuracy": list(scores.values())}).to_parquet(folder / "scores")
    measure_where_lost.run(
        readings=folder / "readings",
        held_out=files["held_out"],
        scores=folder / "scores",
        questions=asked,
        summary=folder / "summary",
        readers=folder / "table",
        spec=checked("measure_where_lost", {**MEASURED, "task": task, "score": "vqa_accuracy"}),
    )
    return pd.read_parquet(folder / "readings"), pd.read_parquet(folder / "summary"), pd.read_parquet(folder / "table")


def test_multiple_choice_is_read_among_its_options(tmp_path):
    readings, summary, table = measured(tmp_path, "choices", asked_with_options, 5, {f"q{i}": i % 2 for i in range(8)})
    said = readings[readings["side"].isin(["question", "pre", "post"])]
    assert len(said) == 3 * 2 * 8
    assert set(readings["side"]) == {"question", "pre", "post", "pooling", "control", "control_prior"}
    for row in said.itertuples():
        assert row.answer == OPTIONS[row.question_id][row.option]
    assert np.isfinite(said["bits"]).all()
    assert summary["grouping"].tolist() == ["all"]
    assert summary.loc[0, ["questions", "wrong", "covered"]].tolist() == [8, 4, 1]
    right = said.assign(right=said["option"] == 0).groupby(["side", "seed"])["right"].mean()
    for (side, seed), share in right.items():
        row = table[table["side"].eq(side) & table["seed"].eq(seed)]
        assert row["reader_accuracy"].item() == pytest.approx(share)


def test_a_killed_run_is_taken_up_only_with_the_same_words(tmp_path):
    measured(tmp_path, "choices", asked_with_options, 5, {f"q{i}": 1 for i in range(8)})
    words = load_tensors(tmp_path / "readers")[1]["key"]["words"]
    numbers, vectors = torch.ones(1, 1, 1, dtype=torch.int64), torch.eye(2)
    digests = {Lexicon(numbers, vectors).digest(), Lexicon(numbers, 2 * vectors).digest(), words}
    assert len(digests) == 3


def test_answers_that_no_reader_knows_are_not_covered_and_are_wrong(tmp_path):
    readings, summary, _ = measured(tmp_path, "answers", asked_openly, 2, {f"q{i}": 1.0 for i in range(16)})
    said = readings[readings["side"] == "post"]
    unknown = said.groupby("question_id")["bits"].apply(lambda bits: bits.isna().all())
    assert 0 < unknown.sum() < 16
    assert set(said["answer"]) <= {"red", "green", "1", "one"}
    whole = summary.iloc[0]
    assert whole["covered"] == pytest.approx(1 - unknown.mean())
    assert (whole["wrong"], whole["model_accuracy"]) == (0, 1)
    assert np.isnan(whole["not_used"])
