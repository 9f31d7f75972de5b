"""Training from the store, buffer by buffer, against the same loop on tensors in memory: tokens/s as a ratio.

Run: python tests/bench/bench_training.py [--quick]. The store has the shapes of the LLaVA miniature and random numbers;
the networks and the number of epochs are those of the default study, on one thread. Each repeat times a training both
ways, one right after the other, so that whatever else the machine does falls on both. The wider a network, the less
reading costs: these are the hardest cases.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from lossmap.reconstruct.batches import Batches, HeldOut
from lossmap.reconstruct.networks import build_network, parameters
from lossmap.reconstruct.pairs import pairs_of
from lossmap.reconstruct.specs import canonical
from lossmap.reconstruct.statistics import Statistics, store_digest
from lossmap.reconstruct.training import Schedule, Workplace, train
from lossmap.store import PartWriter, open_store, write_index

SHAPE = 64, 96  # patches and features before the connector; tokens and features after it
BATCH, EPOCHS = 16, 4
NETWORKS = {
    "mlp": {"kind": "mlp", "widths": [512], "dropout": 0.0},
    "transformer": {"kind": "transformer", "width": 64, "layers": 2, "heads": 4, "dropout": 0.0},
}


def write_store(folder: Path, n: int) -> Path:
    part, rng = folder / f"toy/part-000000-{n:06d}.zarr", np.random.default_rng(0)
    how = {"model": "toy", "pre_grid": [8, 8], "post_grid": [8, 8], "key": {}}
    writer = PartWriter(part, [f"image-{i}" for i in range(n)], SHAPE, SHAPE, "float16", how)
    for first in range(0, n, 256):
        count = min(256, n - first)
        pre, post = (rng.standard_normal((count, *SHAPE), dtype=np.float32) for _ in range(2))
        box, size = np.tile([0.0, 0, 64, 64], (count, 1)), np.full((count, 2), 64)
        writer.append(pre=pre, post=post, pre_mean=pre.mean(1), post_mean=post.mean(1), box=box, size=size)
    writer.close()
    write_index([part], folder / "toy.json")
    return folder / "toy.json"


def seconds(batches: Batches, held_out: HeldOut, architecture: dict, folder: Path) -> float:
    """How long a training takes."""
    network = build_network(architecture, SHAPE, SHAPE, [[patch] for patch in range(SHAPE[0])])
    schedule = Schedule(
        steps=EPOCHS * len(batches), round=len(batches), patience=EPOCHS + 1, learning_rate=1e-3, whiten=False
    )
    accelerator = Accelerator(cpu=True)
    start = time.perf_counter()
    train(network, batches, held_out, schedule, 0, accelerator, Workplace(folder / "work", {}))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats")
    quick = parser.parse_args().quick
    n, buffer, repeats = (2048, 1024, 3) if quick else (4096, 2048, 5)
    torch.set_num_threads(1)
    print(f"{n} images, {EPOCHS} epochs, batch {BATCH}, buffer {buffer} images, 1 thread,", end=" ")
    print(f"median of {repeats} paired repeats [min, max]")
    with tempfile.TemporaryDirectory() as folder:
        index = write_store(Path(folder), n + BATCH)
        moments = [torch.full((SHAPE[1],), value) for value in (0.0, 1.0, 0.0, 1.0)]
        pairs = pairs_of(open_store(index), Statistics(*moments, store_digest(index), canonical({"kind": "own"})))
        images, held_out = np.arange(n), HeldOut(pairs, np.arange(n, n + BATCH), BATCH)
        in_memory, from_store = (Batches(pairs, images, BATCH, 0, buffer, memory) for memory in (2**40, 0))
        for name, architecture in NETWORKS.items():
            seconds(in_memory, held_out, architecture, Path(folder))
            ratios, rates = [], []
            for _ in range(repeats):
                limit = seconds(in_memory, held_out, architecture, Path(folder))
                own = seconds(from_store, held_out, architecture, Path(folder))
                ratios.append(limit / own)
                rates.append(EPOCHS * n * SHAPE[0] / own)
            with torch.device("meta"):
                size = parameters(build_network(architecture, SHAPE, SHAPE, [[patch] for patch in range(SHAPE[0])]))
            spread = f"[{min(ratios):.2f}, {max(ratios):.2f}]"
            what = f"of the tokens/s in memory {spread}, {statistics.median(rates):,.0f} tokens/s"
            print(f"{name:<12} {size:>8,} parameters  {statistics.median(ratios):.2f} {what}", flush=True)


if __name__ == "__main__":
    main()
