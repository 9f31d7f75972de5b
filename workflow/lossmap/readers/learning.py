"""One reader: built, trained, and what it makes of other questions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator

from lossmap.errors import LossmapError
from lossmap.measures.seeds import seed_for
from lossmap.readers.material import Material
from lossmap.readers.network import CrossEntropy, Reader
from lossmap.reconstruct.batches import MEMORY, Batches, HeldOut
from lossmap.reconstruct.sizes import round_steps, step_limit
from lossmap.reconstruct.split import Split
from lossmap.reconstruct.training import Schedule, Training, Workplace, train

AT_A_TIME = 64  # images whose questions are read, at most
AT_ONCE = 8  # times what a batch's images take, for what a reader makes of them on its way


@dataclass(frozen=True)
class ReaderTraining:
    """How readers are trained; a study's `readers: training` has the same, and explains them."""

    epochs: int | None = None
    questions: int = 128  # of a batch, as nearly as whole images can
    learning_rate: float | None = 0.002
    weight_decay: float = 0.01
    clip: float = 1.0
    patience: int = 8
    buffer: int = 4096
    memory: int = MEMORY


class Read(NamedTuple):
    """What a reader says of questions, row i of each the i-th question. answers: number of the likeliest answer or
    option. bits: -log2 of the probability of the right one; NaN where that is none that it knows."""

    answers: np.ndarray
    bits: np.ndarray


def train_reader(
    material: Material,
    split: Split,
    network: Mapping[str, Any],
    answers: int | None,
    seed: int,
    settings: ReaderTraining,
    accelerator: Accelerator,
    where: Workplace | None = None,
) -> tuple[Reader, Training]:
    """Train one reader. It seeds torch's generator.

    Parameters: material, of questions whose right answers are known. split: of the material's images. network: blocks,
        width, heads, dropout. answers: how many it knows; None where it scores options.
    Raises: LossmapError if a batch takes more images than there are, or as `train`.
    """
    share = max(split.train)
    fits = max(1, settings.memory // (AT_ONCE * material.image_bytes))  # however large images are
    images = max(1, min(len(split.train[share]), round(settings.questions / float(material.counts.mean())), fits))
    buffer = max(images, min(settings.buffer, settings.memory // material.image_bytes))
    seed = seed_for(seed, "train_reader")
    part = accelerator.process_index, accelerator.num_processes
    batches = Batches(material, split.train[share], images, seed, buffer, settings.memory, part)
    held_out = HeldOut(material, split.held_out, images, settings.memory, part)
    torch.manual_seed(seed)
    reader = Reader(material.features, material.vectors.shape[1], answers, **network)
    schedule = Schedule(
        steps=step_limit(len(batches), settings.epochs),
        round=round_steps(len(split.held_out), images),
        whiten=False,
        patience=settings.patience,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        clip=settings.clip,
    )
    done = train(reader, batches, held_out, schedule, seed, accelerator, where, CrossEntropy())
    return reader.eval(), done


def read(reader: Reader, material: Material, images: np.ndarray | None = None) -> Read:
    """What a reader says of all questions of some material, or of these of its images, in the order of the questions.

    Raises: LossmapError if a score is not finite.
    """
    images = np.arange(len(material)) if images is None else images
    count = len(material.questions)
    answers, bits = np.full(count, -1, dtype=np.int64), np.full(count, np.nan)
    with torch.inference_mode():
        for some in material.pieces(images, min(AT_A_TIME, material.block)):
            asked, targets = material.load(some)
            scores = reader(asked).double().log_softmax(dim=-1).cpu()
            if scores.isnan().any():
                raise LossmapError(f"{material.index}: a reader's scores are not finite. Train it again.")
            which, right = material.questions_of(some), targets.rows.cpu()
            answers[which] = scores.argmax(dim=1).numpy()
            known = right >= 0
            of_right = scores.gather(1, right.clamp_min(0)[:, None])[:, 0] / -np.log(2)
            bits[which] = torch.where(known, of_right, torch.nan).numpy()
    which = material.questions_of(images)
    kept = np.sort(which)
    return Read(answers[kept], bits[kept])
