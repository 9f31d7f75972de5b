"""Training store, statistics -> a network that reconstructs pre from post, and the history of its training."""

import csv
import shutil
from pathlib import Path

import torch
from accelerate import Accelerator

from lossmap.codehash import code_hash
from lossmap.embeddings import open_embeddings
from lossmap.errors import LossmapError
from lossmap.reconstruct.batches import Batches, HeldOut
from lossmap.reconstruct.networks import build_network
from lossmap.reconstruct.pairs import pairs_of
from lossmap.reconstruct.saving import save_reconstructor
from lossmap.reconstruct.split import split_images
from lossmap.reconstruct.statistics import Statistics
from lossmap.reconstruct.training import Schedule, train
from lossmap.seeds import seed_for


def run(*, embeddings: Path, statistics: Path, reconstructor: Path, history: Path, spec: dict) -> None:
    """Train one network on one share of the images, to undo the connector that the statistics are of.

    spec: network (kind, sizes, dropout), share, held_out, seed, training (epochs, batch, learning_rate, warm_up,
    weight_decay, clip, patience, whiten, accumulate, buffer, memory, threads, processes, checkpoint_minutes). An epoch
    is as many steps as one pass over all training images takes: a smaller share is passed over more often, and all
    shares get the same number of steps. Threads and processes come from the spec, for the weights depend on them. Runs
    on the GPU where there is one; where processes is more than 1, start it with `python -m torch.distributed.run
    --standalone --nproc-per-node <processes> -m lossmap train_reconstructor ...`: each takes a GPU of its own, if there
    are any, and its slice of every batch. A killed run goes on from <reconstructor>.partial/, which is removed in the
    end.
    """
    how = dict(spec["training"])
    names = ("epochs", "batch", "buffer", "memory", "threads", "processes", "checkpoint_minutes")
    epochs, batch, buffer, memory, threads, processes, minutes = (how.pop(name) for name in names)
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
    split = split_images(len(pairs), spec["held_out"], [spec["share"]], spec["seed"])
    seed = seed_for(spec["seed"], "train_reconstructor")
    part = accelerator.process_index, accelerator.num_processes
    batches = Batches(pairs, split.train[spec["share"]], batch, seed, buffer, memory, part)
    held_out = HeldOut(pairs, split.held_out, batch, memory, part)
    blocks = pairs.connector.blocks
    shapes = {"pre_shape": list(pairs.pre_shape), "post_shape": list(pairs.post_shape)}
    shapes["blocks"] = None if blocks is None else blocks.tolist()
    torch.manual_seed(seed)
    network = build_network(spec["network"], **shapes)
    round_steps = (len(pairs) - len(split.held_out)) // batch
    schedule = Schedule(steps=epochs * round_steps, round=round_steps, **how)
    binding = {"spec": spec, "statistics": measured.digest, "code": code_hash("train_reconstructor")}
    binding["torch"] = torch.__version__
    work = reconstructor.with_name(f"{reconstructor.name}.partial")
    rows = train(network, batches, held_out, schedule, seed, accelerator, work, binding, minutes)
    if accelerator.is_main_process:
        architecture = {**spec["network"], **shapes, "held_out_error": min(row["held_out_loss"] for row in rows)}
        save_reconstructor(network, architecture, measured.digest, reconstructor)
        with history.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        shutil.rmtree(work, ignore_errors=True)
    accelerator.end_training()
