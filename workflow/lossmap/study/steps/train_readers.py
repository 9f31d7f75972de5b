"""Training store, questions -> readers of each side of the connector, and what each leaves of held-out questions."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator

from lossmap.measures.seeds import seed_for
from lossmap.readers.asked import Lexicon
from lossmap.readers.choosing import Reader as Name
from lossmap.readers.learning import ReaderTraining, read, train_reader
from lossmap.readers.material import Material, Scale
from lossmap.readers.network import Reader
from lossmap.readers.questions import Questions, frequent_answers, permuted
from lossmap.readers.saving import Readers, save_readers
from lossmap.readers.specs import CONTROLS
from lossmap.reconstruct.saving import file_digest
from lossmap.reconstruct.split import Split, split_images
from lossmap.reconstruct.training import Training, Workplace
from lossmap.study.asking import as_questions, lexicon_of, read_questions
from lossmap.study.products import product_key
from lossmap.study.provenance import provenance
from lossmap.study.specs import TrainReaders
from lossmap.vlm.stored import open_embeddings
from lossmap.vlm.words import load_words

# What a reader is shown: nothing but the question, what leaves the connector, what enters it; and, of the control task,
# what leaves it, with answers that were exchanged at random. Beside these, what control connectors make of pre.
SIDES = {"question": None, "post": "post", "pre": "pre", "control": "post"} | dict.fromkeys(CONTROLS, "pre")


def run(
    *,
    embeddings: Path,
    questions: Path,
    readers: Path,
    held_out: Path,
    history: Path,
    spec: TrainReaders,
) -> None:
    """Train every reader of a model: of the question alone, of post, of pre, of post on the control task, and of what
    control connectors make of pre.

    readers: all of them in one file. held_out: a row for each reader and held-out question: side, network, seed,
    category, bits; training_bits, what it left of its training questions. history: a row for each look at the held-out
    questions. Of open questions those are used whose majority answer is among the most frequent. A killed run goes on
    from <readers>.partial/, which is removed in the end. Threads come from the spec, for the weights depend on them;
    runs on the GPU where there is one.

    spec: checkpoint, revision, task, answers, networks, controls, seeds, held_out, seed, training.
    """
    how = dict(spec.training)
    minutes = how.pop("checkpoint_minutes")
    torch.set_num_threads(how.pop("threads"))
    gpu = torch.cuda.is_available()
    accelerator = Accelerator(cpu=not gpu)
    store = open_embeddings(embeddings, accelerator.device)
    table = read_questions(questions, store, spec.task)
    known = frequent_answers(table["majority"].tolist(), spec.answers) if spec.task == "answers" else None
    asked = as_questions(table, known)
    asked = asked.some(asked.targets >= 0)
    words = load_words(spec.checkpoint, spec.revision)
    lexicon = lexicon_of(asked, words)
    inputs = {"store": file_digest(embeddings), "questions": file_digest(questions), "words": lexicon.digest()}
    key = {**product_key("readers"), "spec": spec.plain(), **inputs}
    work = _Work(readers.with_name(f"{readers.name}.partial"), key, minutes)
    settings = ReaderTraining(**how)
    modules: dict[Name, Reader] = {}
    scales: dict[str, Scale] = {}
    count = None if known is None else len(known)
    left, rows = [], []
    for side, material, split in _materials(store, asked, lexicon, scales, spec, accelerator):
        for network, built in spec.networks.items():
            for seed in spec.seeds:
                name = Name(side, network, seed)
                print(f"{side}, {network}, seed {seed}", file=sys.stderr)
                of_this = seed_for(spec.seed, side, network, str(seed))
                reader, done = train_reader(
                    material, split, built, count, of_this, settings, accelerator, work.place(name)
                )
                modules[name] = reader
                bits = read(reader, material, split.held_out).bits
                which = np.sort(material.questions_of(split.held_out))
                told = {**name._asdict(), "converged": done.converged}
                of_each = {"category": material.questions.categories[which], "bits": bits}
                left.append(pd.DataFrame({**told, "training_bits": _training_bits(done), **of_each}))
                rows += [{**told, **row} for row in done.history]
    made = {"key": key, "provenance": provenance("train_readers", device="cuda" if gpu else "cpu")}
    shares = _shares(asked, known)
    save_readers(Readers(modules, scales, known, shares), spec.networks, readers, made)
    pd.concat(left, ignore_index=True).to_parquet(held_out, index=False)
    pd.DataFrame(rows).to_csv(history, index=False, lineterminator="\n")
    shutil.rmtree(work.folder, ignore_errors=True)


def _training_bits(done: Training) -> float:
    """Left open of training questions, in the round whose weights were kept; nan if those are the first ones."""
    best = min(done.history, key=lambda row: row["held_out_loss"])
    return float(np.nan if best["train_loss"] is None else best["train_loss"] / np.log(2))


ALL = ""  # among the categories of shares of answers


class _Work(NamedTuple):
    """Where a killed run goes on."""

    folder: Path
    key: dict
    minutes: float

    def place(self, name: Name) -> Workplace:
        return Workplace(
            self.folder / "-".join(map(str, name)), {**self.key, "reader": list(name)}, self.minutes, keep=True
        )


def _materials(
    store,
    asked: Questions,
    lexicon: Lexicon,
    scales: dict[str, Scale],
    spec: TrainReaders,
    accelerator: Accelerator,
) -> Iterator[tuple[str, Material, Split]]:
    """What each kind of reader learns from; of all the same images, in the same split. scales: of pre and of post, each
    added when it is first measured."""
    for side in [side for side in SIDES if side not in CONTROLS or side in spec.controls]:
        answered = permuted(asked, seed_for(spec.seed, "control task")) if side == "control" else asked
        shown = SIDES[side] or ""
        material = material_of(side, store, answered, lexicon, scales.get(shown), spec.seed, accelerator.device)
        if material.scale is not None:
            scales[shown] = material.scale
        yield side, material, split_images(len(material), spec.held_out, [100], spec.seed)


def material_of(
    side: str, store, asked: Questions, lexicon: Lexicon, scale: Scale | None, seed: int, device
) -> Material:
    """What a reader of a side is given. side: a key of SIDES."""
    control = side if side in CONTROLS else None
    return Material(store, SIDES[side], asked, lexicon, scale, device, control, seed)


def _shares(asked: Questions, known: list[str] | None) -> dict[str, list[float]]:
    """category -> share of each answer, with as much weight for the shares over all as a question has; of a category
    that training has not: ALL."""
    size = len(known) if known is not None else int(max(map(len, asked.texts)))
    overall = (1 + np.bincount(asked.targets, minlength=size)) / (len(asked) + size)
    found = {ALL: overall.tolist()}
    for category in sorted(set(asked.categories.tolist())):
        counts = overall + np.bincount(asked.targets[asked.categories == category], minlength=size)
        found[category] = (counts / counts.sum()).tolist()
    return found
