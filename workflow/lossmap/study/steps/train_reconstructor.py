"""Training store, statistics, ridge -> a network that reconstructs pre from post, and the history of its training."""

import csv
import shutil
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from lossmap.errors import LossmapError
from lossmap.reconstruct.learning import TrainingSettings, train_network
from lossmap.reconstruct.pairs import pairs_of
from lossmap.reconstruct.saving import file_digest, load_reconstructor, save_reconstructor
from lossmap.reconstruct.split import split_images
from lossmap.reconstruct.statistics import Statistics
from lossmap.reconstruct.training import Training, Workplace
from lossmap.study.products import product_key
from lossmap.study.provenance import provenance
from lossmap.study.specs import TrainReconstructor
from lossmap.vlm.stored import open_embeddings


def run(
    *, embeddings: Path, statistics: Path, ridge: Path, reconstructor: Path, history: Path, spec: TrainReconstructor
) -> None:
    """Train one network on one share of the images, to undo the connector that the statistics are of.

    ridge: the linear decoder fitted on the same share, in the folder of the reconstructor; the network begins as it.
    spec: network (kind, sizes, dropout), share, shares, held_out, seed, training (epochs, batch and learning_rate, each
    None where it is to be found; weight_decay, clip, patience, whiten, accumulate, buffer, memory, threads, processes,
    checkpoint_minutes). A smaller share is passed over more often: all shares may take the same number of steps.
    Threads and processes come from the spec, for the weights depend on them. Runs on the GPU where there is one; where
    processes is more than 1, start it with `python -m torch.distributed.run --standalone --nproc-per-node <processes>
    -m lossmap train_reconstructor ...`: each takes a GPU of its own, if there are any, and its slice of every batch. A
    killed run goes on from <reconstructor>.partial/, which is removed in the end.
    """
    how = dict(spec.training)
    threads, processes, minutes = (how.pop(name) for name in ("threads", "processes", "checkpoint_minutes"))
    torch.set_num_threads(threads)
    gpu = torch.cuda.is_available()
    accelerator = Accelerator(cpu=not gpu, mixed_precision="bf16" if gpu else "no")
    if accelerator.num_processes != processes:
        raise LossmapError(
            f"reconstruction: training: processes is {processes}, but {accelerator.num_processes} were started. Start "
            f"it by Snakemake, or with python -m torch.distributed.run --standalone --nproc-per-node {processes}."
        )
    measured = Statistics.load(statistics)
    measured.check_store(embeddings)
    pairs = pairs_of(open_embeddings(embeddings, accelerator.device), measured, accelerator.device)
    split = split_images(len(pairs), spec.held_out, spec.shares, spec.seed)
    start = {"file": ridge.name, "sha256": file_digest(ridge)}
    linear, _ = load_reconstructor(ridge, measured.digest)
    key = {**product_key("networks"), "spec": spec.plain(), "statistics": measured.digest, "ridge": start}
    work = reconstructor.with_name(f"{reconstructor.name}.partial")
    where = Workplace(work, key, minutes)
    learned = train_network(
        pairs, split, spec.share, spec.network, linear, spec.seed, TrainingSettings(**how), accelerator, where
    )
    if accelerator.is_main_process:
        done, architecture = learned.training, learned.architecture
        architecture |= {} if learned.module.alone else {"ridge": start}
        made = {"key": key, "provenance": provenance("train_reconstructor", device="cuda" if gpu else "cpu")}
        save_reconstructor(learned.module, architecture, measured.digest, reconstructor, made)
        with history.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*done.history[0], "converged"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(row | {"converged": done.converged} for row in done.history)
        print(_told(done, learned.steps, learned.batch), file=sys.stderr)
        shutil.rmtree(work, ignore_errors=True)
    accelerator.end_training()


def _told(done: Training, steps: int, batch: int) -> str:
    """How the training went, for the log."""
    how = "as the study sets it"
    if done.trials:
        tried = ", ".join(f"{rate:g}: {'not finite' if e is None else format(e, '.4g')}" for rate, e in done.trials)
        how = f"found by the held-out error after {done.trial_steps} steps ({tried})"
    rest = "came to rest" if done.converged else "has NOT CONVERGED"
    taken = f"{done.history[-1]['step']:,} of at most {steps:,} steps of {batch} images"
    error = f"Held-out error {done.linear_error:.4g} of ridge, then {done.held_out_error:.4g}"
    alone = ", without ridge, which has too few images for its inputs" * done.alone
    return f"Learning rate {done.learning_rate:g}, {how}. {error}{alone}: {rest} in {taken}."
