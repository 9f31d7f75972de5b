"""One network of the ladder: built to fit a connector, begun as ridge, trained on one share of the images."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from lossmap.errors import LossmapError
from lossmap.measures.seeds import seed_for
from lossmap.reconstruct.batches import MEMORY, Batches, HeldOut
from lossmap.reconstruct.linear import ENOUGH_ROWS, has_enough
from lossmap.reconstruct.networks import BeyondRidge, build_network
from lossmap.reconstruct.pairs import Pairs
from lossmap.reconstruct.ragged_linear import input_rows_of
from lossmap.reconstruct.ragged_networks import build_ragged_network
from lossmap.reconstruct.saving import TOLD
from lossmap.reconstruct.sizes import batch_size, round_steps, step_limit
from lossmap.reconstruct.split import Split
from lossmap.reconstruct.training import Schedule, Training, Workplace, train


@dataclass(frozen=True)
class TrainingSettings:
    """How networks are trained; a study's `reconstruction: training` has the same, and explains them.

    epochs, batch and learning_rate: None where they are to be found (see `sizes` and `training`). buffer and memory:
    see `Batches`. The rest: see `Schedule`.
    """

    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.01
    clip: float = 1.0
    patience: int = 3
    whiten: bool = True
    accumulate: int = 1
    buffer: int = 4096
    memory: int = MEMORY

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> "TrainingSettings":
        """Raises: LossmapError if a setting is not known."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(given or {}) - set(known)):
            raise LossmapError(f"training: {', '.join(unknown)} is no setting of it; it has {', '.join(known)}.")
        return cls(**(given or {}))


class Learned(NamedTuple):
    """A trained network. architecture: what `save_reconstructor` takes, but ridge. steps: at most. batch: images."""

    module: BeyondRidge
    architecture: dict
    training: Training
    steps: int
    batch: int


def train_network(
    pairs: Pairs,
    split: Split,
    share: int,
    network: Mapping[str, Any],
    ridge: nn.Module,
    seed: int,
    settings: TrainingSettings,
    accelerator: Accelerator,
    where: Workplace | None = None,
) -> Learned:
    """Train one network to undo the connector of the pairs. It seeds torch's generator.

    A smaller share is passed over more often: all shares may take the same number of steps.
    Parameters: split, of the training images; share, the one to train on; network, what `build_network` takes; ridge,
        fitted on the same share; where, what a killed run goes on from, if anything.
    Raises: LossmapError as `Batches`, `build_network` and `train`.
    """
    batch = settings.batch or batch_size(min(map(len, split.train.values())))
    seed = seed_for(seed, "train_reconstructor")
    part = accelerator.process_index, accelerator.num_processes
    batches = Batches(pairs, split.train[share], batch, seed, settings.buffer, settings.memory, part)
    held_out = HeldOut(pairs, split.held_out, batch, settings.memory, part)
    shapes = pairs.shapes
    torch.manual_seed(seed)
    if pairs.sizes is None:
        alone = not has_enough(len(batches.images), pairs.post_shape, pairs.connector.blocks)
        built = build_network(network, **shapes)
    else:
        alone = input_rows_of(pairs, batches.images) < ENOUGH_ROWS * pairs.post_shape[1]
        built = build_ragged_network(network, pairs.sizes)
    module = BeyondRidge(ridge, built, alone).silence()
    names = ("learning_rate", "weight_decay", "clip", "patience", "whiten", "accumulate")
    how = {name: getattr(settings, name) for name in names}
    steps = step_limit((len(pairs) - len(split.held_out)) // batch, settings.epochs)
    schedule = Schedule(steps=steps, round=round_steps(len(split.held_out), batch), **how)
    done = train(module, batches, held_out, schedule, seed, accelerator, where)
    told = {name: getattr(done, name) for name in TOLD}
    return Learned(module, {**network, **shapes, **told}, done, steps, batch)
