"""Embeddings, neighbour lists -> how the two sides of the connector lie to each other, and why neighbours change."""

from pathlib import Path

import pandas as pd
import torch

from lossmap.measures.distortion import unit_rows
from lossmap.measures.margin_means import margin_intervals
from lossmap.measures.margins import neighbour_margins
from lossmap.store.index import open_store
from lossmap.study.geometry.alignment import measure_alignment
from lossmap.study.geometry.distortion import measure_distortion
from lossmap.study.geometry.neighbours import measure_neighbours
from lossmap.study.geometry.projections import needed_dimensions, try_projections
from lossmap.study.geometry.similarity import measure_similarity
from lossmap.study.geometry.summary import Summary
from lossmap.study.neighbour_lists import STAGES, read_lists
from lossmap.study.specs import MeasureGeometry


def run(
    *,
    embeddings: Path,
    lists: Path,
    alignment: Path,
    neighbours: Path,
    summary: Path,
    dimensions: Path,
    projections: Path,
    spec: MeasureGeometry,
    threads: int = 1,
) -> None:
    """Measure alignment, similarity, margins and the dimension that a random projection would need.

    alignment: per image, its error, its place in Figure 6, and its distance from the mean of all. neighbours: per image
    and k, margins and ranks. summary: one row per measure and k, with interval and chance level. dimensions: those
    needed, per margin quantile and k. projections: what random projections preserve.
    spec: dataset, model, k, quantiles (of margins), delta, queries (images on which projections are checked),
    confidence, resamples, seed.
    """
    torch.set_num_threads(threads)
    store = open_store(embeddings)
    found = read_lists(lists)
    image_ids, rows = found.image_ids, found.rows_of(store["image_id"].values)
    before, after = (store[f"{stage}_mean"].values[rows] for stage in STAGES)
    by_distance, by_cosine = ([found.rankings[metric, stage] for stage in STAGES] for metric in ("euclidean", "cosine"))
    measured = Summary(spec, found.counts())

    images = measure_alignment(measured, before, after)
    images.insert(0, "image_id", image_ids)
    images.to_parquet(alignment, index=False)

    measure_similarity(measured, before, after, [ranking.first(2) for ranking in by_distance])
    line, typical = measure_distortion(measured, before, after)
    cosine_lists = [ranking.first(max(spec.k)) for ranking in by_cosine]
    margins = neighbour_margins(before, after, cosine_lists[0], cosine_lists[1], spec.k, line, typical)
    units = [unit_rows(x, name) for x, name in ((before, "before"), (after, "after"))]
    means = margin_intervals(before, after, margins, spec.k, spec.confidence, measured.seed("halves"))
    measure_neighbours(measured, margins, by_cosine, units, means, image_ids).to_parquet(neighbours, index=False)

    needed_dimensions(measured, margins).to_parquet(dimensions, index=False)
    try_projections(measured, margins, units[0], cosine_lists[0], after.shape[1]).to_parquet(projections, index=False)
    pd.DataFrame(measured.rows).astype({"k": "Int64"}).to_parquet(summary, index=False)
