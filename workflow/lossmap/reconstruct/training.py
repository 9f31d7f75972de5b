"""Train a network to undo a connector: AdamW, warm-up and cosine decay, early stopping, and no work lost to a kill."""

import json
import math
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim.adamw import adamw
from tqdm import tqdm

from lossmap.errors import LossmapError
from lossmap.reconstruct.batches import Batches, HeldOut
from lossmap.reconstruct.saving import load_tensors, save_tensors
from lossmap.reconstruct.whitening import fold, measure_whitening, whiten
from lossmap.seeds import seed_for


@dataclass(frozen=True)
class Schedule:
    """How to train.

    steps: optimiser steps in all. round: steps between two looks at the held-out images. patience: rounds without a
    lower held-out error until training stops. learning_rate: at its peak. warm_up: part of all steps in which the rate
    rises to it in a line; from there it falls to 0 along a cosine. weight_decay: AdamW's. clip: the gradient's largest
    norm. whiten: see `whitening`. accumulate: pieces in which a process takes its slice of a batch, where memory is
    short.
    """

    steps: int
    round: int
    patience: int = 5
    learning_rate: float = 1e-4
    warm_up: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    whiten: bool = True
    accumulate: int = 1

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, ..."""
        rising = max(1, round(self.warm_up * self.steps))
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return self.learning_rate * (1 + math.cos(math.pi * (step - rising) / (self.steps - rising))) / 2


@dataclass
class Progress:
    """Where a run stands, between two steps."""

    step: int = 0
    best: float = math.inf  # lowest held-out error so far
    rounds_since_best: int = 0
    losses: list[float] = field(default_factory=list)  # of the steps since the last round
    history: list[dict] = field(default_factory=list)


class Run:
    """A network in training: its weights, the optimiser's moments, the best weights so far.

    torch.optim's function is used, not its class, which imports a compiler: a second of every job.
    """

    def __init__(self, network: nn.Module):
        self.weights = dict(network.named_parameters())
        self.mean = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.square = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.best: dict[str, Tensor] = {}
        self.count = [torch.zeros((), device=weight.device) for weight in self.weights.values()]
        self.progress = Progress()

    def update(self, rate: float, weight_decay: float) -> None:
        """One step of AdamW along the gradients that the weights hold, which are then dropped."""
        weights = list(self.weights.values())
        with torch.no_grad():
            adamw(
                weights,
                [weight.grad for weight in weights],
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

    def end_round(self, row: dict) -> None:
        """Take note of a round's row of the history; keep the weights if its held-out error is the lowest."""
        progress = self.progress
        progress.history.append(row)
        progress.losses, progress.rounds_since_best = [], progress.rounds_since_best + 1
        if row["held_out_loss"] < progress.best:
            progress.best, progress.rounds_since_best = row["held_out_loss"], 0
            self.best = {name: weight.detach().clone() for name, weight in self.weights.items()}

    def save(self, path: Path, binding: dict) -> None:
        """Everything that the next step depends on, in one file. binding: what must be the same to go on from it."""
        groups = {"weights": self.weights, "mean": self.mean, "square": self.square, "best": self.best}
        tensors = {f"{group}/{name}": values for group, named in groups.items() for name, values in named.items()}
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
                weight.copy_(tensors[f"weights/{name}"])
                self.mean[name].copy_(tensors[f"mean/{name}"])
                self.square[name].copy_(tensors[f"square/{name}"])
                if self.progress.history:
                    self.best[name] = tensors[f"best/{name}"].to(weight.device)
        for taken in self.count:
            taken.fill_(self.progress.step)


def train(
    network: nn.Module,
    batches: Batches,
    held_out: HeldOut,
    schedule: Schedule,
    seed: int,
    accelerator: Accelerator,
    work: Path,
    binding: dict,
    checkpoint_minutes: float = 5.0,
) -> list[dict]:
    """Train a network in place, to least squared error on standardised pre; it ends with its best weights.

    A run that was killed goes on from `work` and ends in the same weights, bit by bit on the same kind of machine and
    number of threads. Several processes (`accelerate launch`) do what one does, each on its slice of every batch; only
    dropout draws other noise.

    Parameters: network, (b, tokens, width) -> (b, patches, features); batches and held_out, with the part of this
        process; seed, of dropout; work, a folder for what a killed run goes on from, brought up to date every
        `checkpoint_minutes`; binding, JSON: what the run depends on. A work folder of another binding is not used.
    Returns: the history: step, epoch (passes over the training images), learning_rate, train_loss (mean since the row
        before), held_out_loss, images (seen so far), a row for each round.
    Raises: LossmapError if the loss or its gradient is not finite; the weights before that step are kept in `work`.
    """
    network.to(accelerator.device)
    if schedule.whiten:
        whiten(network, measure_whitening(batches, accelerator))
    # Alone and in full precision there is nothing to prepare, and accelerate would import a second's worth to find out.
    alone = accelerator.num_processes == 1 and accelerator.mixed_precision == "no"
    module = network if alone else accelerator.prepare_model(network)
    run, path = Run(network), Path(work) / "run.safetensors"
    run.resume(path, binding)
    accelerator.wait_for_everyone()  # the first process may write as soon as the last has read
    saved = time.monotonic()
    progress = run.progress
    network.train()
    with tqdm(total=schedule.steps, initial=progress.step, unit="step", disable=not accelerator.is_main_process) as bar:
        for inputs, targets in batches.steps(progress.step, schedule.steps):
            if progress.rounds_since_best >= schedule.patience:
                break
            rate = schedule.rate(progress.step)
            loss, norm = _gradient(module, inputs, targets, batches.batch, schedule, seed, progress.step, accelerator)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                if accelerator.is_main_process:
                    run.save(path, binding)
                raise LossmapError(
                    f"Step {progress.step + 1}, learning rate {rate:.3g}: the training loss is {loss:g}, the norm of"
                    f" its gradient {norm:g}. The weights before this step are in {path}. Set a lower learning_rate, a"
                    " longer warm_up or a smaller clip."
                )
            run.update(rate, schedule.weight_decay)
            progress.losses.append(loss)
            bar.update()
            if progress.step % schedule.round == 0 or progress.step == schedule.steps:
                row = _round(network, batches, held_out, progress, rate, accelerator)
                run.end_round(row)
                bar.set_postfix(held_out=f"{row['held_out_loss']:.4f}", best=f"{progress.best:.4f}")
            if accelerator.is_main_process and time.monotonic() - saved >= 60 * checkpoint_minutes:
                run.save(path, binding)
                saved = time.monotonic()
    with torch.no_grad():
        for name, weight in run.weights.items():
            weight.copy_(run.best[name])
    if schedule.whiten:
        fold(network)
    return progress.history


def _round(network, batches, held_out, progress, rate, accelerator) -> dict:
    """The row of the history that ends here."""
    error = held_out_error(network, held_out, accelerator)
    if not math.isfinite(error):
        raise LossmapError(
            f"Step {progress.step}, learning rate {rate:.3g}: the held-out error is {error:g}. Check the embeddings of"
            " the training store, or set a lower learning_rate."
        )
    return {
        "step": progress.step,
        "epoch": progress.step / len(batches),
        "learning_rate": rate,
        "train_loss": math.fsum(progress.losses) / len(progress.losses),
        "held_out_loss": error,
        "images": progress.step * batches.batch,
    }


def held_out_error(network: nn.Module, held_out: HeldOut, accelerator: Accelerator) -> float:
    """Mean squared error over all held-out images, patches and features."""
    total = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    network.eval()
    with torch.inference_mode():
        for inputs, targets in held_out:
            total[0] += (network(inputs) - targets).square().sum(dtype=torch.float64)
            total[1] += targets.numel()
    network.train()
    squared, entries = accelerator.reduce(total, "sum").tolist()
    return squared / entries


def _gradient(module, inputs, targets, batch, schedule, seed, step, accelerator) -> tuple[float, float]:
    """Loss of a whole batch, over all processes, and the norm of its gradient, which is left clipped in the weights."""
    torch.manual_seed(seed_for(seed, "dropout", str(step), str(accelerator.process_index)))
    entries = batch * targets[0].numel()
    pieces = min(schedule.accumulate, len(inputs))
    total = torch.zeros((), device=targets.device)
    for i, (x, y) in enumerate(zip(inputs.tensor_split(pieces), targets.tensor_split(pieces), strict=True)):
        # Gradients are summed over processes once, with the last piece.
        with accelerator.no_sync(module) if i + 1 < pieces else nullcontext():
            loss = mse_loss(module(x), y, reduction="sum") / entries
            accelerator.backward(loss * accelerator.num_processes)  # which takes the mean over processes
        total += loss.detach()
    norm = nn.utils.clip_grad_norm_(module.parameters(), schedule.clip)
    return float(accelerator.reduce(total, "sum")), float(norm)
