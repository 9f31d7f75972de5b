"""Simulated samples of images -> how often the intervals of measures of neighbours cover, as a table."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from lossmap.errors import LossmapError
from lossmap.measures.seeds import seed_for
from lossmap.measures.simulation import clusters, coverage, finite_population, gaussian_channel, intervals_of
from lossmap.store.index import open_store
from lossmap.study.tables import write_csv

SHARES = (10 / 400, 50 / 400, 100 / 400)  # of the images: each k of the default study
LEAST = 10  # a k, too, however many images
HALVED = 400  # images of a sample, at most, of which half-samples are taken


def run(
    *,
    table: Path,
    embeddings: list[Path] | None = None,
    other: list[Path] | None = None,
    sizes: list[int] | None = None,
    samples: list[int] | None = None,
    seed: int = 0,
) -> None:
    """Draw samples of images from populations, compute every interval, and count how often it holds the truth.

    table: the CSV file to write, a row per population, size, measure and k. embeddings: indexes of stores of one model,
    pooled to a population of images; other: of another model, on the same images. sizes: images of a sample (default:
    200, 400 and 2000). samples: how many of each size (default: 120, 120 and 39). What takes half-samples is measured
    in samples of up to 400 images. The same seed gives the same table.
    """
    torch.set_num_threads(1)
    populations = {"gaussian": (gaussian_channel, np.inf), "clusters": (clusters, np.inf)}
    if embeddings:
        whole = _pooled(embeddings, other or embeddings)
        populations["images"] = (finite_population(*whole), len(whole[0]))
    sizes, samples, rows = sizes or [200, 400, 2000], samples or [120, 120, 39], []
    for name, (draw, size) in populations.items():
        for n, count in zip(sizes, samples, strict=True):
            if n >= size:
                raise LossmapError(f"sizes: {n} of {size} images are no sample. Give more embeddings or smaller sizes.")
            ks = sorted({LEAST, *(max(1, round(share * n)) for share in SHARES)})
            found: dict[tuple[str, int | None], list] = {}
            for i in tqdm(range(count), desc=f"{name}, {n} images"):
                rng = np.random.default_rng(seed_for(seed, "simulate_coverage", name, str(n), str(i)))
                for key, interval in intervals_of(draw(n, rng), ks, i, margins=n <= HALVED).items():
                    found.setdefault(key, []).append(interval)
            place = {"population": name, "n": n}
            rows += [
                {**place, "measure": measure, "k": k or pd.NA, **coverage(values, n / size)}
                for (measure, k), values in found.items()
            ]
    write_csv(pd.DataFrame(rows).astype({"k": "Int64"}), table)


def _pooled(embeddings: list[Path], other: list[Path]) -> list[np.ndarray]:
    """Means before and after a connector, and after another, of the images of several stores that all differ."""
    stores, others = ([open_store(path) for path in paths] for paths in (embeddings, other))
    before, after = (np.concatenate([store[f"{side}_mean"].values for store in stores]) for side in ("pre", "post"))
    second = np.concatenate([store["post_mean"].values for store in others])
    if len(second) != len(before):
        raise LossmapError(f"other: has {len(second)} images, embeddings {len(before)}; wanted the same images")
    _, first = np.unique(before, axis=0, return_index=True)
    return [side[np.sort(first)] for side in (before, after, second)]
