"""Neighbour lists -> the share of each image's neighbours that the connector keeps."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.measures.overlap import chance_corrected, overlap_including_self, ranking_overlaps
from lossmap.measures.seeds import seed_for
from lossmap.study.neighbour_lists import STAGES, read_lists
from lossmap.study.specs import MeasureOverlap


def run(*, lists: Path, overlap: Path, summary: Path, spec: MeasureOverlap) -> None:
    """Measure the k-NN overlap ratio of every image, and its mean with interval, chance level and permutation null.

    spec: dataset, model, k, metrics, permutations, confidence, seed.
    """
    neighbours = read_lists(lists)
    tail = 50 * (1 - spec.confidence)
    per_image, means = [], []
    for metric in spec.metrics:
        before, after = (neighbours.rankings[metric, stage] for stage in STAGES)
        seed = seed_for(spec.seed, "measure_overlap", spec.dataset, spec.model, metric)
        rng = np.random.default_rng(seed)
        overlaps = ranking_overlaps(before, after, spec.k, spec.permutations, spec.confidence, rng)
        for k, measured in zip(spec.k, overlaps, strict=True):
            kept, with_self = measured.per_item, overlap_including_self(before.first(k), after.first(k), k)
            columns = {"image_id": neighbours.image_ids, "metric": metric, "k": k, "overlap": kept}
            per_image.append(pd.DataFrame({**columns, "overlap_with_self": with_self}))
            means.append(
                {
                    "dataset": spec.dataset,
                    **neighbours.counts(),
                    "model": spec.model,
                    "metric": metric,
                    "k": k,
                    "overlap": measured.value,
                    "low": measured.low,
                    "high": measured.high,
                    "std": kept.std(),
                    "chance": measured.chance,
                    "null_low": np.percentile(measured.null, tail),
                    "null_high": np.percentile(measured.null, 100 - tail),
                    "p_permutation": measured.p,
                    "overlap_corrected": chance_corrected(measured.value, measured.n, k),
                    "overlap_paper_convention": with_self.mean(),
                }
            )
    pd.concat(per_image).to_parquet(overlap, index=False)
    pd.DataFrame(means).to_parquet(summary, index=False)
