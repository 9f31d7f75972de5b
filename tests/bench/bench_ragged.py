"""Images that differ in shape against equal squares: patches/s of reading and of training, as a ratio.

Run: python tests/bench/bench_ragged.py [--quick]. Both stores hold as many images, of 64 features a patch and a token:
squares of 8 x 8 patches, and images of 32 to 96 patches, 64 on average. Each repeat times both, one right after the
other, on one thread. Pairs are held in memory while networks train, so that reading is measured by itself.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from lossmap.reconstruct.batches import Batches, HeldOut
from lossmap.reconstruct.networks import build_network
from lossmap.reconstruct.pairs import Pairs, pairs_of
from lossmap.reconstruct.ragged_networks import build_ragged_network
from lossmap.reconstruct.specs import canonical
from lossmap.reconstruct.statistics import Statistics, store_digest
from lossmap.reconstruct.training import Schedule, Workplace, train
from lossmap.store import open_store, write_index, write_part
from lossmap.store.layouts import Layout, one_view

WIDTH, BATCH, EPOCHS = 64, 16, 2
GRIDS = (8, 8), (4, 8), (8, 12), (16, 4), (12, 8), (8, 4)  # 64 patches on average
LEAST = 0.85
NETWORKS = {
    "mlp": {"kind": "mlp", "widths": [512], "dropout": 0.0},
    "transformer": {"kind": "transformer", "width": 64, "layers": 2, "heads": 4, "dropout": 0.0},
}


def write_images(index: Path, n: int, ragged: bool) -> Path:
    """A store of random numbers, of as many patches either way if n is a multiple of the number of grids."""
    rng, paths = np.random.default_rng(0), [index.parent / f"{index.stem}/part-000000-{n:06d}.zarr"]
    grid = None if ragged else [8, 8]
    how = {"model": "toy", "pre_grid": grid, "post_grid": grid, "key": {}}
    grids = [GRIDS[i] for i in rng.permutation(np.arange(n) % len(GRIDS))]
    layouts = [Layout(640, 480, one_view(grid, grid), ((0.0, 0.0, 640.0, 480.0),)) for grid in grids]

    def batches():
        for first in range(0, n, 256):
            some = layouts[first : first + 256]
            count = len(some)
            rows = (sum(one.shape.patches for one in some),) if ragged else (count, 64)
            pre, post = (rng.standard_normal((*rows, WIDTH), dtype=np.float32) for _ in range(2))
            means = {f"{side}_mean": np.zeros((count, WIDTH), dtype=np.float32) for side in ("pre", "post")}
            square = {"box": np.tile([0.0, 0, 640, 480], (count, 1)), "size": np.tile([640, 480], (count, 1))}
            yield {"pre": pre, "post": post, **means, **({"layouts": some} if ragged else square)}

    write_part(batches(), paths[0], [f"image-{i}" for i in range(n)], "float16", how)
    write_index(paths, index)
    return index


def open_pairs(index: Path) -> Pairs:
    moments = [torch.full((WIDTH,), value) for value in (0.0, 1.0, 0.0, 1.0)]
    return pairs_of(open_store(index), Statistics(*moments, store_digest(index), canonical({"kind": "own"})))


def patches_of(pairs: Pairs, images: np.ndarray) -> int:
    return int(pairs.target_counts[images].sum()) if pairs.pre_shape[0] is None else 64 * len(images)


def reading(pairs: Pairs, n: int) -> Callable[[Path], float]:
    """Patches/s of an epoch of shuffled batches that are read when they are due."""
    images = np.arange(n)

    def rate(folder: Path) -> float:
        start = time.perf_counter()
        for _ in Batches(pairs, images, BATCH, 0, 1024, 0).epoch(0):
            pass
        return patches_of(pairs, images) / (time.perf_counter() - start)

    return rate


def training(pairs: Pairs, n: int, architecture: dict) -> Callable[[Path], float]:
    """Patches/s of a training, the held-out error after each epoch included."""
    images = np.arange(n)
    batches, held_out = Batches(pairs, images, BATCH, 0), HeldOut(pairs, np.arange(n, len(pairs)), BATCH)

    def rate(folder: Path) -> float:
        torch.manual_seed(0)
        if pairs.sizes is None:
            network = build_network(architecture, **pairs.shapes)
        else:
            network = build_ragged_network(architecture, pairs.sizes)
        steps = EPOCHS * len(batches)
        schedule = Schedule(steps=steps, round=len(batches), patience=EPOCHS + 1, learning_rate=1e-3, whiten=False)
        start = time.perf_counter()
        train(network, batches, held_out, schedule, 0, Accelerator(cpu=True), Workplace(folder / "work", {}))
        return EPOCHS * patches_of(pairs, images) / (time.perf_counter() - start)

    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats")
    quick = parser.parse_args().quick
    n, repeats = (768, 3) if quick else (3072, 5)
    torch.set_num_threads(1)
    print(f"{n} images, batch {BATCH}, 1 thread, median of {repeats} paired repeats [min, max]; wanted: {LEAST}")
    with tempfile.TemporaryDirectory() as folder:
        both = [
            open_pairs(write_images(Path(folder) / f"{k}.json", n + 96, k == "ragged")) for k in ("square", "ragged")
        ]
        made = {"reading": [reading(pairs, n) for pairs in both]}
        made |= {name: [training(pairs, n, how) for pairs in both] for name, how in NETWORKS.items()}
        for name, (square, ragged) in made.items():
            square(Path(folder)), ragged(Path(folder))  # warms up
            found = [(square(Path(folder)), ragged(Path(folder))) for _ in range(repeats)]
            ratios = [one / of for of, one in found]
            spread = f"[{min(ratios):.2f}, {max(ratios):.2f}]"
            rate = statistics.median(one for _, one in found)
            what = f"of the patches/s of squares {spread}, {rate:,.0f} patches/s"
            print(f"{name:<12} {statistics.median(ratios):.2f} {what}", flush=True)


if __name__ == "__main__":
    main()
