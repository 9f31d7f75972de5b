"""Embeddings -> the share of neighbours kept, by other indexes than distance of mean-pooled embeddings."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lossmap.measures.index_ablation import Pooled, pooled_without_sinks, streamed_neighbours, whitened
from lossmap.measures.neighbours import rank_neighbours
from lossmap.measures.overlap import chance_overlap, overlap_including_self, ranking_overlap
from lossmap.measures.ranking import Ranking
from lossmap.store.images import Images
from lossmap.study.columns import INDEXES
from lossmap.study.neighbour_lists import STAGES, read_lists
from lossmap.study.specs import CompareIndexes
from lossmap.vlm.stored import open_embeddings


def run(*, embeddings: Path, lists: Path, overlap: Path, summary: Path, spec: CompareIndexes, threads: int = 1) -> None:
    """Measure the k-NN overlap ratio by six indexes: all patches side by side or pooled, by distance or inner product;
    by four where images differ in layout, so that their patches can't be compared side by side.

    lists: neighbour lists of the same embeddings, which say which images are compared. spec: dataset, model, k, memory
    (in GB, for patches), sink_ratio, confidence. Runs on the GPU where there is one.
    """
    torch.set_num_threads(threads)
    store = open_embeddings(embeddings, "cuda" if torch.cuda.is_available() else "cpu")
    compared = read_lists(lists)
    rows = compared.rows_of(store["image_id"].values)
    found, left_out = zip(*(_rankings(store, rows, stage, spec) for stage in STAGES), strict=True)
    per_image, means = [], []
    for index in found[0]:
        before, after = found[0][index], found[1][index]
        for k in spec.k:
            measured = ranking_overlap(before, after, k)
            kept, with_self = measured.values, overlap_including_self(before.first(k), after.first(k), k)
            row = {"index": index, "k": k, "overlap": kept, "overlap_with_self": with_self}
            per_image.append(pd.DataFrame({"image_id": compared.image_ids, **row}))
            mean, low, high = measured.interval(spec.confidence, bounds=(0, 1))
            means.append(
                {
                    "dataset": spec.dataset,
                    **compared.counts(),
                    "model": spec.model,
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


def _rankings(store, images: np.ndarray, stage: str, spec: CompareIndexes) -> tuple[dict[str, Ranking], float]:
    """Index -> ranking of these rows of the store on one side of the connector; and the share of their tokens that are
    sinks."""
    k, where = max(spec.k), Images(store)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    means = store[f"{stage}_mean"].values[images]
    # Side by side, patches can be compared only where every image has as many, in the same places.
    flat = {} if where.ragged else _side_by_side(store[stage], images, k, spec, device)
    whole = _without_sinks(where, stage, images, spec)
    rankings = {
        "mean_pooled_euclidean": rank_neighbours(means, k, device=device),
        "mean_pooled_cosine": rank_neighbours(means, k, "cosine", device=device),
        "whitened_euclidean": rank_neighbours(whitened(means), k, device=device),
        "without_sinks_euclidean": rank_neighbours(whole.mean, k, device=device),
    } | {f"flat_{metric}": ranking for metric, ranking in flat.items()}
    return {index: rankings[index] for index in INDEXES if index in rankings}, float(whole.left_out.mean())


def _block(n: int, item_bytes: int, spec: CompareIndexes) -> int:
    """Images whose tokens are held at once, of which two blocks are."""
    return int(min(n, max(1, spec.memory * 2**30 // (2 * item_bytes))))


def _side_by_side(tokens, images: np.ndarray, k: int, spec: CompareIndexes, device: str) -> dict[str, Ranking]:
    n, item_bytes = len(images), tokens.dtype.itemsize * int(np.prod(tokens.shape[1:]))
    block = _block(n, item_bytes, spec)
    return streamed_neighbours(lambda start, stop: tokens[images[start:stop]].values, n, k, block, device)


def _without_sinks(where: Images, stage: str, images: np.ndarray, spec: CompareIndexes) -> Pooled:
    """Of each image, the mean of its tokens less those of outlying length."""
    array, found = where.dataset[stage], []
    for alike in where.alike(images):
        count = alike.shape.patches if stage == "pre" else alike.shape.tokens
        # A quarter of a block: float32 takes twice the space of half precision.
        rows = max(1, _block(len(images), array.dtype.itemsize * count * array.shape[-1], spec) // 4)
        for start in range(0, len(alike.positions), rows):
            some = alike.positions[start : start + rows]
            found.append((some, pooled_without_sinks(where.read(stage, images[some]), spec.sink_ratio)))
    order = np.argsort(np.concatenate([positions for positions, _ in found]))
    return Pooled(*(np.concatenate(parts)[order] for parts in zip(*(pooled for _, pooled in found), strict=True)))
