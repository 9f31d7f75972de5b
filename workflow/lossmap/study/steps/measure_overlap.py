"""Neighbour lists -> the share of each image's neighbours that the connector keeps."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.measures.overlap import (
    chance_corrected,
    chance_overlap,
    overlap_including_self,
    permutation_null,
    ranking_overlap,
)
from lossmap.measures.seeds import seed_for
from lossmap.study.neighbour_lists import STAGES, read_lists

ROUNDING = 1e-12  # of means that are equal but for the order of their sums


def run(*, lists: Path, overlap: Path, summary: Path, spec: dict) -> None:
    """Measure the k-NN overlap ratio of every image, and its mean with interval, chance level and permutation null.

    spec: dataset, model, k, metrics, permutations, confidence, seed.
    """
    neighbours = read_lists(lists)
    tail = 50 * (1 - spec["confidence"])
    per_image, means = [], []
    for metric in spec["metrics"]:
        before, after = (neighbours.rankings[metric, stage] for stage in STAGES)
        seed = seed_for(spec["seed"], "measure_overlap", spec["dataset"], spec["model"], metric)
        nulls = permutation_null(before, after, spec["k"], spec["permutations"], np.random.default_rng(seed))
        for k, null in zip(spec["k"], nulls.T, strict=True):
            measured = ranking_overlap(before, after, k)
            kept, with_self = measured.values, overlap_including_self(before.first(k), after.first(k), k)
            columns = {"image_id": neighbours.image_ids, "metric": metric, "k": k, "overlap": kept}
            per_image.append(pd.DataFrame({**columns, "overlap_with_self": with_self}))
            mean, low, high = measured.interval(spec["confidence"], bounds=(0, 1))
            means.append(
                {
                    "dataset": spec["dataset"],
                    **neighbours.counts(),
                    "model": spec["model"],
                    "metric": metric,
                    "k": k,
                    "overlap": mean,
                    "low": low,
                    "high": high,
                    "std": kept.std(),
                    "chance": chance_overlap(len(kept), k),
                    "null_low": np.percentile(null, tail),
                    "null_high": np.percentile(null, 100 - tail),
                    "p_permutation": (1 + (null >= mean - ROUNDING).sum()) / (1 + len(null)),
                    "overlap_corrected": chance_corrected(mean, len(kept), k),
                    "overlap_paper_convention": with_self.mean(),
                }
            )
    pd.concat(per_image).to_parquet(overlap, index=False)
    pd.DataFrame(means).to_parquet(summary, index=False)
