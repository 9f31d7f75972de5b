"""Embeddings, questions, readers -> what every reader answers to every question."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lossmap.measures.seeds import seed_for
from lossmap.readers.learning import Read, read
from lossmap.readers.material import Material
from lossmap.readers.questions import permuted
from lossmap.readers.saving import load_readers
from lossmap.reconstruct.saving import file_digest
from lossmap.study.asking import as_questions, lexicon_of, read_questions
from lossmap.study.products import product_key
from lossmap.study.provenance import provenance
from lossmap.study.specs import ReadAnswers
from lossmap.study.steps.train_readers import ALL, SIDES, material_of
from lossmap.vlm.stored import open_embeddings
from lossmap.vlm.words import load_words


def run(
    *, embeddings: Path, questions: Path, readers: Path, readings: Path, spec: ReadAnswers, threads: int = 1
) -> None:
    """Let every reader of a model answer all questions of a dataset.

    readings: a row per reader and question: side, network, seed, question_id, image_id, category; answer, in words;
    option, its number, of multiple choice; bits, -log2 of the probability of the right answer (the majority's), nan
    where that is none that readers know. Of the control task the right answers are exchanged at random within a
    category; side control_prior: what the shares of answers in training would say of these.

    spec: dataset, checkpoint, revision, task, seed.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store, trained = open_embeddings(embeddings, device), load_readers(readers)
    table = read_questions(questions, store, spec.task)
    asked = as_questions(table, trained.answers)
    lexicon = lexicon_of(asked, load_words(spec.checkpoint, spec.revision))
    exchanged = permuted(asked, seed_for(spec.seed, "control task", spec.dataset))
    materials: dict[str, Material] = {}
    found = []
    for name, module in trained.modules.items():
        print("{}, {}, seed {}".format(*name), file=sys.stderr)
        if name.side not in materials:
            answered = exchanged if name.side == "control" else asked
            scale = trained.scales.get(SIDES[name.side] or "")
            materials[name.side] = material_of(name.side, store, answered, lexicon, scale, spec.seed, device)
        said = read(module.to(device), materials[name.side])
        found.append(_rows(table, said, trained.answers).assign(**name._asdict()))
    shares = [trained.shares.get(one, trained.shares[ALL]) for one in exchanged.categories]
    prior = np.array(
        [-np.log2(row[i]) if 0 <= i < len(row) else np.nan for row, i in zip(shares, exchanged.targets, strict=True)]
    )
    unsaid = Read(np.full(len(table), -1), prior)
    found.append(_rows(table, unsaid, None).assign(side="control_prior", network="", seed=0))
    key = {**product_key("readings"), "spec": spec.plain(), "readers": file_digest(readers)}
    about = {"key": key, "provenance": provenance("read_answers", device=device)}
    made = pa.Table.from_pandas(pd.concat(found, ignore_index=True), preserve_index=False)
    pq.write_table(made.replace_schema_metadata({"lossmap": json.dumps(about, sort_keys=True)}), readings)


def _rows(table: pd.DataFrame, said: Read, known: list[str] | None) -> pd.DataFrame:
    """What one reader says, a row per question."""
    rows = table[["question_id", "image_id", "category"]].copy()
    if known is None:
        options = [
            None if row.options is None or answer < 0 else row.options[answer]
            for row, answer in zip(table.itertuples(), said.answers, strict=True)
        ]
    else:
        options = [known[answer] for answer in said.answers]
    return rows.assign(answer=options, option=said.answers if known is None else -1, bits=said.bits)
