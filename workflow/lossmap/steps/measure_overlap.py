"""Neighbour lists -> the share of each image's neighbours that the connector keeps."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.measures.overlap import (
    chance_corrected,
    chance_overlap,
    list_overlap,
    overlap_including_self,
    permutation_null,
)
from lossmap.measures.statistics import bootstrap_mean
from lossmap.neighbour_lists import read_lists
from lossmap.seeds import seed_for


def run(*, lists: Path, overlap: Path, summary: Path, spec: dict) -> None:
    """Measure the k-NN overlap ratio of every image, and its mean with interval, chance level and permutation null.

    spec: dataset, model, k, metrics, permutations, confidence, resamples, seed.
    """
    image_ids, found = read_lists(lists)
    tail = 50 * (1 - spec["confidence"])
    per_image, means = [], []
    for metric in spec["metrics"]:
        before, after = found[metric, "pre"], found[metric, "post"]
        seed = seed_for(spec["seed"], "measure_overlap", spec["dataset"], spec["model"], metric)
        nulls = permutation_null(before, after, spec["k"], spec["permutations"], np.random.default_rng(seed))
        for k, null in zip(spec["k"], nulls.T, strict=True):
            kept, with_self = list_overlap(before, after, k), overlap_including_self(before, after, k)
            per_image.append(
                pd.DataFrame(
                    {"image_id": image_ids, "metric": metric, "k": k, "overlap": kept, "overlap_with_self": with_self}
                )
            )
            mean, low, high = bootstrap_mean(kept, spec["resamples"], spec["confidence"], seed)
            chance = chance_overlap(len(kept), k)
            means.append(
                {
                    "dataset": spec["dataset"],
                    "n": len(kept),
                    "model": spec["model"],
                    "metric": metric,
                    "k": k,
                    "overlap": mean,
                    "low": low,
                    "high": high,
                    "std": kept.std(),
                    "chance": chance,
                    "null_low": np.percentile(null, tail),
                    "null_high": np.percentile(null, 100 - tail),
                    "p_permutation": (1 + (null >= mean).sum()) / (1 + len(null)),
                    "overlap_corrected": chance_corrected(mean, len(kept), k),
                    "overlap_paper_convention": with_self.mean(),
                }
            )
    pd.concat(per_image).to_parquet(overlap, index=False)
    pd.DataFrame(means).to_parquet(summary, index=False)
