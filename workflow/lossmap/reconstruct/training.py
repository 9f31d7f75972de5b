"""Train a network to undo a connector: AdamW at a rate found by trial, early stopping, and no work lost to a kill.

A network begins as its linear decoder (see `networks.BeyondRidge`), and the start is the first candidate for the
weights that are kept; one that learns alone ends as its linear decoder if it does not come below it. Training goes in
stages of falling learning rate. A stage ends when the held-out error no longer falls; the next one goes on from the
best weights. Training is at rest, and has converged, when a whole stage gained next to nothing. If the limit of steps
comes first, the network has not converged.
"""

import json
import math
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.adamw import adamw
from tqdm import tqdm

from lossmap.errors import LossmapError
from lossmap.measures.seeds import seed_for
from lossmap.reconstruct.batches import Batches, HeldOut
from lossmap.reconstruct.networks import BeyondRidge
from lossmap.reconstruct.objective import Objective, SquaredError
from lossmap.reconstruct.saving import load_tensors, save_tensors
from lossmap.reconstruct.whitening import fold, measure_whitening, whiten

RATES = (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001, 0.00003, 0.00001)  # that are tried
TRIALS = (25, 100)  # steps for which a rate is tried: longer where none gained REST, as beside a good linear decoder
NEARLY = 0.8  # of the best rate's gain: the highest rate that gains so much is taken
CUT = 0.3  # of the learning rate, from one stage to the next
STAGES = 8  # at most: the last has a rate of 1/5,000 of the first
FALL = 0.005  # of the held-out error: a smaller fall in `patience` rounds ends a stage
FIRST_FALL = 0.001  # the same in the first stage, whose rate may be low
SQUARED_ERROR = SquaredError()
REST = 0.01  # of the held-out error: a stage that gains less ends the training


@dataclass(frozen=True)
class Schedule:
    """How to train.

    steps: optimiser steps, at most. round: steps between two looks at the held-out images. patience: rounds without a
    fall of the held-out error until a stage ends. learning_rate: of the first stage, to which it rises in a line in the
    first round; None: the one of `RATES` that does best in a trial. weight_decay: AdamW's. clip: the gradient's largest
    norm. whiten: see `whitening`. accumulate: pieces in which a process takes its slice of a batch, where memory is
    short.
    """

    steps: int
    round: int
    patience: int = 3
    learning_rate: float | None = None
    weight_decay: float = 0.01
    clip: float = 1.0
    whiten: bool = True
    accumulate: int = 1

    def rate(self, progress: "Progress") -> float:
        """Learning rate of the next step."""
        if progress.learning_rate is None:
            raise ValueError("no learning rate was found yet")
        rising = min(1, (progress.step + 1) / self.round) if progress.stage == 0 else 1
        return progress.learning_rate * CUT**progress.stage * rising


@dataclass
class Progress:
    """Where a run stands, between two steps."""

    trials: list[list[float]] = field(default_factory=list)  # rates tried, and the held-out error that each reached
    trial_steps: int = TRIALS[0]  # in so many steps
    learning_rate: float | None = None  # of the first stage, once it is known
    linear: float = math.inf  # held-out error of ridge
    stage: int = 0
    step: int = 0
    best: float = math.inf  # lowest held-out error so far
    stage_start: float = math.inf  # the best when this stage began
    fallen_to: float = math.inf  # the best when it last fell by enough
    rounds_since_fall: int = 0
    ended: bool = False  # of itself, not by the limit of steps
    losses: list[float] = field(default_factory=list)  # of the steps since the last round
    history: list[dict] = field(default_factory=list)

    @property
    def start(self) -> float:
        """The held-out error before the first step."""
        return self.history[0]["held_out_loss"]


@dataclass(frozen=True)
class Training:
    """How a training went.

    history: a row for each look at the held-out images: step, epoch (passes over the training images), learning_rate,
    train_loss (mean since the row before; None at the start), held_out_loss, images (seen so far). linear_error: held
    out, of ridge, or of the network's start where it has none. alone: whether the network learned without ridge.
    learning_rate: of the first stage. trials: [rate, held-out error] of each that was tried, in trial_steps steps; none
    where the rate was given. converged: whether the held-out error came to rest before the limit of steps. A network
    that gained next to nothing over ridge has converged only if it began there and the rate was found by trial: else
    the rate, or learning alone, may be why.
    """

    history: list[dict]
    linear_error: float
    alone: bool
    learning_rate: float
    trials: list[list[float]]
    trial_steps: int
    converged: bool

    @property
    def held_out_error(self) -> float:
        """Of the weights that were kept, which are ridge's if none were better."""
        return min(self.linear_error, *(row["held_out_loss"] for row in self.history))

    @property
    def halfway_error(self) -> float:
        """What `held_out_error` would have been after the first half of the steps, with half the passes."""
        half = self.history[-1]["step"] / 2
        return min(self.linear_error, *(row["held_out_loss"] for row in self.history if row["step"] <= half))

    @property
    def passes(self) -> float:
        """Over the training images."""
        return self.history[-1]["epoch"]


@dataclass(frozen=True)
class Workplace:
    """What a killed run goes on from. folder: where it lies; binding, JSON: what the run depends on, for a folder of
    another binding is not used; minutes: how often it is brought up to date; keep: whether the end of the run is kept
    there, too, so that one of several need not be run again."""

    folder: Path
    binding: dict
    minutes: float = 5.0
    keep: bool = False

    @property
    def file(self) -> Path:
        return self.folder / "run.safetensors"


class Run:
    """A network in training: its weights, the optimiser's moments, the best weights so far.

    AdamW is torch's own: its function, not its class, which imports a compiler, a second of every job, and whose state
    would have to be taken apart to be saved by name. Torch's schedulers change a rate and nothing else; here a stage
    also returns to the best weights with new moments, and may end the training, so `end_round` decides all of it, from
    the progress that is saved anyway.
    """

    def __init__(self, network: nn.Module):
        self.weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        self.mean = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.square = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.best = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.count = [torch.zeros((), device=weight.device) for weight in self.weights.values()]
        self.progress = Progress()

    def update(self, rate: float, weight_decay: float) -> None:
        """One step of AdamW along the gradients that the weights hold, which are then dropped."""
        weights: list[Tensor] = list(self.weights.values())
        with torch.no_grad():
            adamw(
                weights,
                cast("list[Tensor]", [weight.grad for weight in weights]),
                list(self.mean.values()),
                list(self.square.values()),
                [],
                self.count,
                fused=True,
                lr=rate,
                beta1=0.9,
                beta2=0.999,
                eps=1e-8,
                weight_decay=weight_decay,
                amsgrad=False,
                maximize=False,
            )
        for weight in weights:
            weight.grad = None
        self.progress.step += 1

    def end_round(self, row: dict, schedule: Schedule) -> None:
        """Take note of a round's row of the history; keep its weights, begin the next stage or end, as it asks for."""
        progress, error = self.progress, row["held_out_loss"]
        progress.history.append(row)
        progress.losses, progress.rounds_since_fall = [], progress.rounds_since_fall + 1
        if error < progress.best:
            progress.best = error
            self.best = {name: weight.detach().clone() for name, weight in self.weights.items()}
        if progress.best < progress.fallen_to * (1 - (FALL if progress.stage else FIRST_FALL)):
            progress.fallen_to, progress.rounds_since_fall = progress.best, 0
        if progress.rounds_since_fall >= schedule.patience:
            gained = progress.best < progress.stage_start * (1 - REST)
            learned = progress.best < progress.start * (1 - REST)
            # Where next to nothing was learned yet, the rate may still be too high.
            enough = (learned and progress.stage > 0) or progress.stage + 1 == STAGES
            progress.ended = enough and not gained
            if not progress.ended:
                self.begin_stage(min(progress.stage + 1, STAGES - 1))

    def begin_stage(self, stage: int) -> None:
        """Go on from the best weights with new moments."""
        self.to_best()
        for weight in self.weights.values():
            weight.grad = None  # of a trial that was given up
        for values in (*self.mean.values(), *self.square.values(), *self.count):
            values.zero_()
        progress = self.progress
        progress.stage, progress.rounds_since_fall = stage, 0
        progress.stage_start = progress.fallen_to = progress.best

    def to_best(self) -> None:
        """The best weights so far become the network's."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.best[name])

    def save(self, path: Path, binding: dict) -> None:
        """Everything that the next step depends on, in one file. binding: what must be the same to go on from it."""
        groups: dict[str, Mapping[str, Tensor]] = {
            "weights": self.weights,
            "mean": self.mean,
            "square": self.square,
            "best": self.best,
        }
        tensors = {f"{group}/{name}": values for group, named in groups.items() for name, values in named.items()}
        tensors["count"] = self.count[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, tensors, {"binding": binding, "progress": asdict(self.progress)})

    def resume(self, path: Path, binding: dict) -> None:
        """Go on from a file that `save` wrote, if there is one of the same binding; else begin."""
        if not path.is_file():
            return
        try:
            tensors, description = load_tensors(path)
        except LossmapError as error:
            print(f"{error} Training begins anew.", file=sys.stderr)
            return
        if description["binding"] != json.loads(json.dumps(binding)):
            print(f"{path}: of a run with other settings, data or code. Training begins anew.", file=sys.stderr)
            return
        self.progress = Progress(**description["progress"])
        with torch.no_grad():
            for name, weight in self.weights.items():
                for group, values in (("weights", weight), ("mean", self.mean[name]), ("square", self.square[name])):
                    values.copy_(tensors[f"{group}/{name}"])
                self.best[name].copy_(tensors[f"best/{name}"])
        for taken in self.count:
            taken.copy_(tensors["count"])


def train(
    network: nn.Module,
    batches: Batches,
    held_out: HeldOut,
    schedule: Schedule,
    seed: int,
    accelerator: Accelerator,
    where: Workplace | None = None,
    objective: Objective = SQUARED_ERROR,
) -> Training:
    """Train a network in place, to least error, by default squared, on standardised pre; it ends with its best weights.

    A run that was killed goes on from its workplace and ends in the same weights, bit by bit on the same kind of
    machine and number of threads. Several processes (`accelerate launch`) do what one does, each on its slice of every
    batch; only dropout draws other noise.

    Parameters: network, (b, tokens, width) -> (b, patches, features), a `BeyondRidge` or one of `build_network`, or the
        same of `Ragged`, or a reader; what needs no gradient is left as it is. batches and held_out, with the part of
        this process; seed, of dropout; where, what a killed run goes on from; None: nothing is kept on the way.
        objective, what is lowered.
    Raises: LossmapError if the loss or its gradient is not finite; the weights before that step are kept there.
    """
    network.to(accelerator.device)
    learner = network.network if isinstance(network, BeyondRidge) else network
    if schedule.whiten:
        whiten(learner, measure_whitening(batches, accelerator))
    trainer = _Trainer(network, batches, held_out, schedule, seed, accelerator, where, objective)
    trainer.begin()
    if trainer.run.progress.learning_rate is None:
        trainer.find_rate()
    trainer.go_on()
    if where is not None and where.keep:
        trainer.checkpoint(due=True)
    if schedule.whiten:
        fold(learner)
    if "_original_forward" in vars(network):  # accelerate's, in half precision; what follows is in full
        accelerator.unwrap_model(network, keep_fp32_wrapper=False)
    progress = trainer.run.progress
    below = progress.best < progress.linear
    if isinstance(network, BeyondRidge) and trainer.alone and not below:
        network.silence().alone = False
    learned = progress.best < progress.linear * (1 - REST)
    converged = progress.ended and (learned if schedule.learning_rate else below or not trainer.alone)
    how = progress.linear, trainer.alone, progress.learning_rate, progress.trials, progress.trial_steps
    return Training(progress.history, *how, converged)


class _Trainer:
    """A run, with all that its steps need; see `train`."""

    def __init__(self, network, batches, held_out, schedule, seed, accelerator, where, objective):
        # Alone and in full precision there is nothing to prepare, and accelerate would import a second's worth to see.
        alone = accelerator.num_processes == 1 and accelerator.mixed_precision == "no"
        self.module = network if alone else accelerator.prepare_model(network)
        self.network, self.batches, self.held_out, self.schedule = network, batches, held_out, schedule
        self.seed, self.accelerator = seed, accelerator
        self.where, self.objective = where, objective
        self.alone = isinstance(network, BeyondRidge) and network.alone
        self.run, self.saved = Run(network), time.monotonic()

    def begin(self) -> None:
        """Go on from the work folder, or look at the held-out images once before the first step."""
        if self.where:
            self.run.resume(self.where.file, self.where.binding)
        self.accelerator.wait_for_everyone()  # the first process may write as soon as the last has read
        progress = self.run.progress
        if not progress.history:
            progress.learning_rate = self.schedule.learning_rate
            error = progress.linear = self.held_out_error("Before the first step")
            if self.alone:
                self.network.alone = False
                progress.linear = self.held_out_error("Before the first step")
                self.network.alone = True
            progress.best = progress.stage_start = progress.fallen_to = error
            progress.history.append(self.row(error, rate=0.0, train_loss=None))

    def find_rate(self) -> None:
        """Try the rates, highest first, each from the start for a few steps, until a lower one gains much less."""
        progress = self.run.progress
        while True:
            self.try_rates()
            if max(_gains(progress)) >= REST * progress.start or progress.trial_steps == TRIALS[-1]:
                break
            progress.trials, progress.trial_steps = [], TRIALS[TRIALS.index(progress.trial_steps) + 1]
        progress.learning_rate = _chosen(progress)
        if progress.learning_rate is None:
            raise LossmapError(
                f"At every learning rate from {RATES[0]:g} to {RATES[-1]:g}, the loss is not finite within"
                f" {progress.trial_steps} steps. Check the embeddings of the training store, or choose another network."
            )

    def try_rates(self) -> None:
        """One trial of rates, all of the same number of steps; one that was begun goes on."""
        progress = self.run.progress
        while len(progress.trials) < len(RATES) and not _enough(progress):
            rate = RATES[len(progress.trials)]
            progress.trials.append([rate, self.trial(rate)])
            progress.step = 0
            self.run.begin_stage(0)
            self.checkpoint()

    def trial(self, rate: float) -> float | None:
        """The held-out error that a rate reaches, rising in a line in the first half; None if it is not finite."""
        steps = self.run.progress.trial_steps
        for inputs, targets in self.batches.steps(0, steps):
            if not all(map(math.isfinite, self.gradient(inputs, targets))):
                return None
            self.run.update(rate * min(1, 2 * (self.run.progress.step + 1) / steps), self.schedule.weight_decay)
        error = held_out_error(self.network, self.held_out, self.accelerator, self.objective)
        return error if math.isfinite(error) else None

    def go_on(self) -> None:
        """Train to the end; the network is left with its best weights."""
        schedule, progress = self.schedule, self.run.progress
        self.network.train()
        # Only where it is so: TQDM_DISABLE, the environment's, holds where the argument is not given.
        quiet = {} if self.accelerator.is_main_process else {"disable": True}
        with tqdm(total=schedule.steps, initial=progress.step, unit="step", **quiet) as bar:
            for inputs, targets in self.batches.steps(progress.step, 0 if progress.ended else schedule.steps):
                rate = schedule.rate(progress)
                loss, norm = self.gradient(inputs, targets)
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    self.checkpoint(due=True)
                    kept = f" The weights before this step are in {self.where.file}." if self.where else ""
                    raise LossmapError(
                        f"Step {progress.step + 1}, learning rate {rate:.3g}: the training loss is {loss:g}, the norm"
                        f" of its gradient {norm:g}.{kept} Set a lower learning_rate or a smaller clip."
                    )
                self.run.update(rate, schedule.weight_decay)
                progress.losses.append(loss)
                bar.update()
                if progress.step % schedule.round == 0 or progress.step == schedule.steps:
                    error = self.held_out_error(f"Step {progress.step}, learning rate {rate:.3g}")
                    train_loss = math.fsum(progress.losses) / len(progress.losses)
                    self.run.end_round(self.row(error, rate, train_loss), schedule)
                    bar.set_postfix(held_out=f"{error:.4f}", best=f"{progress.best:.4f}")
                self.checkpoint()
                if progress.ended:
                    break
        self.run.to_best()

    def checkpoint(self, due: bool = False) -> None:
        """Bring the work folder up to date, if it is time."""
        if self.where is None or not self.accelerator.is_main_process:
            return
        if due or time.monotonic() - self.saved >= 60 * self.where.minutes:
            self.run.save(self.where.file, self.where.binding)
            self.saved = time.monotonic()

    def row(self, error: float, rate: float, train_loss: float | None) -> dict:
        """The row of the history that ends here."""
        step = self.run.progress.step
        return {
            "step": step,
            "epoch": step / len(self.batches),
            "learning_rate": rate,
            "train_loss": train_loss,
            "held_out_loss": error,
            "images": step * self.batches.batch,
        }

    def held_out_error(self, when: str) -> float:
        """Of the network as it is. when: where this is, for an error."""
        error = held_out_error(self.network, self.held_out, self.accelerator, self.objective)
        if not math.isfinite(error):
            remedy = ", or set a lower learning_rate" if self.run.progress.step else ""
            raise LossmapError(
                f"{when}: the held-out error is {error:g}. Check the embeddings of the training store{remedy}."
            )
        return error

    def entries(self, targets: Any) -> int:
        """Of how many numbers a whole batch has the error, over all processes."""
        count = torch.tensor(self.objective.count(targets), device=targets.device)
        return int(self.accelerator.reduce(count, "sum"))

    def gradient(self, inputs: Any, targets: Any) -> tuple[float, float]:
        """Loss of a whole batch, over all processes, and the norm of its gradient, left clipped in the weights."""
        schedule, accelerator, module = self.schedule, self.accelerator, self.module
        step = str(self.run.progress.step)
        torch.manual_seed(seed_for(self.seed, "dropout", step, str(accelerator.process_index)))
        entries = self.entries(targets)
        pieces = min(schedule.accumulate, len(inputs))
        total = torch.zeros((), device=targets.device)
        for i, (x, y) in enumerate(zip(inputs.tensor_split(pieces), targets.tensor_split(pieces), strict=True)):
            # Gradients are summed over processes once, with the last piece.
            with accelerator.no_sync(module) if i + 1 < pieces else nullcontext():
                loss = self.objective.total(module(x), y) / entries
                accelerator.backward(loss * accelerator.num_processes)  # which takes the mean over processes
            total += loss.detach()
        norm = nn.utils.clip_grad_norm_(self.run.weights.values(), schedule.clip)
        return float(accelerator.reduce(total, "sum")), float(norm)


def _gains(progress: Progress) -> list[float]:
    """By how much each rate that was tried lowered the held-out error."""
    return [progress.start - error if error is not None else -math.inf for _, error in progress.trials]


def _enough(progress: Progress) -> bool:
    """Whether a rate helped, and the last, lower one helped less than half as much."""
    gains = _gains(progress)
    return bool(gains) and max(gains) > 0 and gains[-1] < max(gains) / 2


def _chosen(progress: Progress) -> float | None:
    """The highest rate that gains nearly as much as the best: what is high for a few steps is low for many."""
    gains = _gains(progress)
    enough = max(gains) * NEARLY if max(gains) > 0 else max(gains)
    rates = (rate for (rate, _), gain in zip(progress.trials, gains, strict=True) if gain >= enough > -math.inf)
    return next(rates, None)


def held_out_error(
    network: nn.Module, held_out: Iterable, accelerator: Accelerator, objective: Objective = SQUARED_ERROR
) -> float:
    """Mean error over all held-out images, which other processes have parts of: by default the squared one, over all
    patches and features."""
    total = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    network.eval()
    with torch.inference_mode():
        for inputs, targets in held_out:
            total[0] += objective.exact_total(network(inputs), targets)
            total[1] += objective.count(targets)
    network.train()
    summed, entries = accelerator.reduce(total, "sum").tolist()
    return summed / entries
