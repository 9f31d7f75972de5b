"""Embeddings -> the share of neighbours kept, by other indexes than distance of mean-pooled embeddings."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lossmap.embeddings import open_embeddings
from lossmap.measures.index_ablation import Pooled, pooled_without_sinks, streamed_neighbours, whitened
from lossmap.measures.neighbours import nearest_neighbours
from lossmap.measures.overlap import chance_overlap, list_overlap, overlap_including_self
from lossmap.measures.statistics import bootstrap_mean
from lossmap.neighbour_lists import STAGES
from lossmap.seeds import seed_for
from lossmap.store import iterate


def run(*, embeddings: Path, overlap: Path, summary: Path, spec: dict, threads: int = 1) -> None:
    """Measure the k-NN overlap ratio by six indexes: all patches side by side or pooled, by distance or inner product.

    spec: dataset, model, k, memory (in GB, for patches), sink_ratio, confidence, resamples, seed. Runs on the GPU where
    there is one.
    """
    torch.set_num_threads(threads)
    store = open_embeddings(embeddings, "cuda" if torch.cuda.is_available() else "cpu")
    found, left_out = zip(*(_lists(store, stage, spec) for stage in STAGES), strict=True)
    image_ids = store["image_id"].values
    per_image, means = [], []
    for index in found[0]:
        before, after = found[0][index], found[1][index]
        seed = seed_for(spec["seed"], "compare_indexes", spec["dataset"], spec["model"], index)
        for k in spec["k"]:
            kept, with_self = list_overlap(before, after, k), overlap_including_self(before, after, k)
            row = {"index": index, "k": k, "overlap": kept, "overlap_with_self": with_self}
            per_image.append(pd.DataFrame({"image_id": image_ids, **row}))
            mean, low, high = bootstrap_mean(kept, spec["resamples"], spec["confidence"], seed)
            means.append(
                {
                    "dataset": spec["dataset"],
                    "n": len(kept),
                    "model": spec["model"],
                    "index": index,
                    "k": k,
                    "overlap": mean,
                    "low": low,
                    "high": high,
                    "std": kept.std(),
                    "chance": chance_overlap(len(kept), k),
                    "overlap_paper_convention": with_self.mean(),
                    "std_paper_convention": with_self.std(),
                    **{f"sinks_{stage}": share for stage, share in zip(STAGES, left_out, strict=True)},
                }
            )
    pd.concat(per_image).to_parquet(overlap, index=False)
    pd.DataFrame(means).to_parquet(summary, index=False)


def _lists(store, stage: str, spec: dict) -> tuple[dict[str, np.ndarray], float]:
    """Index -> neighbour lists of one side of the connector; and the share of its tokens that are sinks."""
    k, n = max(spec["k"]), store.sizes["image"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens, means = store[stage], store[f"{stage}_mean"].values
    item_bytes = tokens.dtype.itemsize * int(np.prod(tokens.shape[1:]))
    block = int(min(n, max(1, spec["memory"] * 2**30 // (2 * item_bytes))))  # two blocks are held at a time
    flat = streamed_neighbours(lambda start, stop: tokens[start:stop].values, n, k, block, device)
    rows = max(1, block // 4)  # float32 takes twice the space of half precision
    pooled = [pooled_without_sinks(part, spec["sink_ratio"]) for part in iterate(store, stage, rows)]
    pooled = Pooled(*(np.concatenate(parts) for parts in zip(*pooled, strict=True)))
    lists = {
        "flat_l2": flat["l2"],
        "mean_pooled_l2": nearest_neighbours(means, k, device=device),
        "flat_ip_normalised": flat["ip"],
        "mean_pooled_ip_normalised": nearest_neighbours(means, k, "ip", device=device),
        "whitened_l2": nearest_neighbours(whitened(means), k, device=device),
        "without_sinks_l2": nearest_neighbours(pooled.mean, k, device=device),
    }
    return lists, float(pooled.left_out.mean())
