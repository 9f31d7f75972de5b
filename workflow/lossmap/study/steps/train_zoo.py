"""Scenes of handwritten digits -> a trained miniature model: one checkpoint folder of the zoo."""

from pathlib import Path

import torch

from lossmap.errors import LossmapError
from lossmap.miniature.build import MODELS
from lossmap.miniature.card import save_checkpoint
from lossmap.miniature.train import RECIPES, Trainer


def run(*, model: str, folder: Path, work: Path) -> None:
    """Train a miniature model on scenes of handwritten digits.

    model: llava, idefics2, qwen2_5_vl or internvl; folder: the checkpoint folder to write; work: where a run that is
    stopped keeps what it needs to go on when it is started again. It takes one core, because the weights depend on the
    number of threads.
    """
    if model not in MODELS:
        raise LossmapError(f"There is no miniature model {model!r}. Choose one of {', '.join(MODELS)}.")
    torch.set_num_threads(1)
    trainer = Trainer(model, RECIPES[model], work)
    seconds = trainer.train()
    scores = save_checkpoint(model, trainer.model, trainer.processor, RECIPES[model], folder, seconds)
    print(f"{folder}: {100 * scores['answers']['all']:.1f}% of the held-out questions answered exactly")
