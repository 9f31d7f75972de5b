"""Embeddings, neighbour lists -> how the two sides of the connector lie to each other, and why neighbours change."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lossmap.measures.dimension import effective_rank, intrinsic_dimension
from lossmap.measures.distortion import pair_changes, pair_quantiles, unit_rows
from lossmap.measures.margin_means import margin_intervals
from lossmap.measures.margins import Margins, neighbour_margins
from lossmap.measures.overlap import chance_overlap, ranking_overlap
from lossmap.measures.procrustes import first_components, procrustes
from lossmap.measures.random_projection import dimension_curve, draws, kept_by_projection, sampling_margin
from lossmap.measures.ranking import Ranking
from lossmap.measures.seeds import seed_for
from lossmap.measures.similarity import (
    chance_trustworthiness,
    cka,
    order_agreement,
    trustworthiness,
    trustworthiness_with_ties,
)
from lossmap.measures.statistics import bootstrap_mean
from lossmap.store.index import open_store
from lossmap.study.neighbour_lists import STAGES, read_lists


def run(
    *,
    embeddings: Path,
    lists: Path,
    alignment: Path,
    neighbours: Path,
    summary: Path,
    dimensions: Path,
    projections: Path,
    spec: dict,
    threads: int = 1,
) -> None:
    """Measure alignment, similarity, margins and the dimension that a random projection would need.

    alignment: per image, its error and its place in Figure 6. neighbours: per image and k, margins and ranks. summary:
    one row per measure and k, with interval and chance level. dimensions: those needed, per margin quantile and k.
    projections: what random projections keep.
    spec: dataset, model, k, quantiles (of margins), delta, queries (images on which projections are checked),
    confidence, resamples, seed.
    """
    torch.set_num_threads(threads)
    store = open_store(embeddings)
    found = read_lists(lists)
    image_ids, rows = found.image_ids, found.rows_of(store["image_id"].values)
    before, after = (store[f"{stage}_mean"].values[rows] for stage in STAGES)
    by_distance, by_cosine = ([found.rankings[metric, stage] for stage in STAGES] for metric in ("euclidean", "cosine"))
    measured = _Summary(spec, found.counts())

    images = _alignment(measured, before, after)
    images.insert(0, "image_id", image_ids)
    images.to_parquet(alignment, index=False)

    _similarity(measured, before, after, [ranking.first(2) for ranking in by_distance])
    line, typical = _distortion(measured, before, after)
    cosine_lists = [ranking.first(max(spec["k"])) for ranking in by_cosine]
    margins = neighbour_margins(before, after, *cosine_lists, spec["k"], line, typical)
    units = [unit_rows(x, name) for x, name in ((before, "before"), (after, "after"))]
    means = margin_intervals(before, after, margins, spec["k"], spec["confidence"], measured.seed("halves"))
    _neighbours(measured, margins, by_cosine, units, means, image_ids).to_parquet(neighbours, index=False)

    _dimensions(measured, margins).to_parquet(dimensions, index=False)
    _projections(measured, margins, units[0], cosine_lists[0], after.shape[1]).to_parquet(projections, index=False)
    pd.DataFrame(measured.rows).astype({"k": "Int64"}).to_parquet(summary, index=False)


class _Summary:
    """What all measures share: settings, seeds, and the rows of the summary."""

    def __init__(self, spec: dict, counts: dict[str, int]):
        self.spec, self.counts, self.n, self.rows = spec, counts, counts["n"], []
        self.resampling = {
            "resamples": spec["resamples"],
            "confidence": spec["confidence"],
            "seed": self.seed("images"),
        }

    def seed(self, purpose: str) -> int:
        return seed_for(self.spec["seed"], "measure_geometry", self.spec["dataset"], self.spec["model"], purpose)

    def add(self, measure: str, interval, k: int | None = None, chance: float = np.nan, n: int | None = None) -> None:
        """One row of the summary; k is missing where a measure has none."""
        place = {"dataset": self.spec["dataset"], **self.counts, "model": self.spec["model"]}
        place["n"] = n or self.n
        value, low, high = interval
        row = {"measure": measure, "k": k, "value": value, "low": low, "high": high, "chance": chance}
        self.rows.append({**place, **row})

    def add_mean(self, measure: str, values: np.ndarray, k: int | None = None, chance: float = np.nan) -> None:
        self.add(measure, bootstrap_mean(values, **self.resampling), k, chance)


def _alignment(measured: _Summary, before: np.ndarray, after: np.ndarray) -> pd.DataFrame:
    """Procrustes as in the paper, shares of variance on held-out images; per image, its error and place in Figure 6."""
    rng = np.random.default_rng(measured.seed("alignment"))
    found = procrustes(before, after, **measured.resampling, rng=rng)
    laid = found.alignment
    measured.add("procrustes_error", found.error.interval, chance=found.error.chance)
    for name in ("std", "min", "max"):
        measured.add(f"procrustes_error_{name}", (getattr(laid.errors, name)(), np.nan, np.nan))
    for name, share in found.unexplained.items():
        measured.add(f"unexplained_{name}", share.interval, chance=share.chance, n=share.n)
    onto_before = first_components(laid.before)
    places = {
        "pre": laid.before @ onto_before,
        "post": laid.after @ first_components(laid.after),
        "aligned": laid.aligned @ onto_before,
    }
    columns = {f"{name}_{j + 1}": place[:, j] for name, place in places.items() for j in range(2)}
    return pd.DataFrame({"procrustes_error": laid.errors, **columns})


def _similarity(measured: _Summary, before: np.ndarray, after: np.ndarray, lists: list[np.ndarray]) -> None:
    """Measures of whole sets of embeddings."""
    measured.add("cka", cka(before, after, **measured.resampling).interval, chance=0)
    for stage, x, nearest in zip(STAGES, (before, after), lists, strict=True):
        measured.add(f"effective_rank_{stage}", effective_rank(x, **measured.resampling))
        dimension = intrinsic_dimension(x, nearest, measured.spec["confidence"])
        measured.add(f"intrinsic_dimension_{stage}", dimension.interval, n=dimension.used)


def _distortion(measured: _Summary, before: np.ndarray, after: np.ndarray) -> tuple[tuple[float, float], float]:
    """Quantiles over pairs of images. Returns the line of PairChanges and the median change beyond it."""
    changes = pair_changes(before, after)
    typical = None
    for name, values, quantiles in (
        ("cosine_change", np.abs(changes.change), (0.5, 0.95)),
        ("cosine_residual", np.abs(changes.residual), (0.5, 0.95)),
        ("distance_ratio", changes.ratio / np.nanmedian(changes.ratio), (0.01, 0.99)),
    ):
        intervals = pair_quantiles(values, changes.first, changes.second, quantiles, **measured.resampling)
        for quantile, interval in zip(quantiles, intervals, strict=True):
            measured.add(f"{name}_q{round(100 * quantile):02d}", interval)
        typical = intervals[0].mean if name == "cosine_residual" else typical
    return changes.line, typical


def _neighbours(
    measured: _Summary, margins: Margins, rankings: list[Ranking], units: list[np.ndarray], means: dict, image_ids
) -> pd.DataFrame:
    """Margins, ties and ranks of every image and k, and what they come to."""
    ks, n, confidence = measured.spec["k"], measured.n, measured.spec["confidence"]
    overlap, bound, sharper = margins.overlap(ks), margins.bound(ks), margins.sharper_bound(ks)
    guaranteed = sampling_margin(margins.inside - margins.outside, margins.density, n, measured.spec["delta"])
    plain = all(ranking.without_ties for ranking in rankings)
    sides = {"trustworthiness": (0, 1, margins.ranks_before), "continuity": (1, 0, margins.ranks_after)}

    measured.add("epsilon", (margins.epsilon.mean(), np.nan, np.nan))
    frames = []
    for j, k in enumerate(ks):
        kept = ranking_overlap(*rankings, k)
        columns = {
            "margin": (margins.inside - margins.outside)[:, j],
            "epsilon": margins.epsilon,
            **{name: getattr(margins, name)[:, j] for name in ("ties", "lost", "near_ties", "own_ties", "closeness")},
            "overlap": kept.values,
            "bound": bound[:, j],
            "sharper_bound": sharper[:, j],
            "guaranteed_margin": guaranteed[:, j],
        }
        measured.add("mutual_neighbours", kept.interval(confidence, bounds=(0, 1)), k, chance_overlap(n, k))
        if 2 * k < n:  # beyond, trustworthiness is not defined
            for name, (ranked, listed, ranks) in sides.items():
                if plain:
                    columns[name] = trustworthiness(ranks[:, :k], n)
                else:
                    columns[name] = trustworthiness_with_ties(units[ranked], rankings[listed], k)
                moved = columns[name].mean() - means[name, j].mean  # by ties
                measured.add(name, [part + moved for part in means[name, j]], k, chance_trustworthiness(n, k))
        if k > 1:
            columns["kendall"], columns["spearman"] = order_agreement(margins.ranks_after[:, :k])
            for name in ("kendall", "spearman"):
                measured.add(name, means[name, j], k, 0)
        median = float(np.median(columns["margin"]))
        measured.add("margin_median", means["margin_median", j] if median > 0 else (median, np.nan, np.nan), k)
        close = int((~np.isnan(columns["closeness"])).sum())
        measured.add("closeness", means["closeness", j], k, 0, close)
        for name in ("share_near_ties", "share_own_ties"):
            measured.add(name, means[name, j], k)
        for name, holds in (  # about these images alone, so without interval
            ("bound_holds", (overlap >= bound) & (overlap >= sharper)),
            ("bound_says_something", sharper > 0),
            ("margin_guaranteed", guaranteed > 0),
        ):
            measured.add(name, (holds[:, j].mean(), np.nan, np.nan), k)
        frames.append(pd.DataFrame({"image_id": image_ids, "k": k, **columns}))
    return pd.concat(frames)


def _dimensions(measured: _Summary, margins: Margins) -> pd.DataFrame:
    """Dimension that a random projection needs, for every k up to the largest and each margin quantile."""
    frames = []
    for quantile in measured.spec["quantiles"]:
        curve = dimension_curve(margins.nearest, quantile, measured.spec["confidence"])
        k = np.arange(1, len(curve.value) + 1)
        frames.append(pd.DataFrame({"quantile": quantile, "k": k, **curve._asdict()}))
    table = pd.concat(frames).rename(columns={"value": "dimension"})
    return table.assign(dataset=measured.spec["dataset"], n=measured.n, model=measured.spec["model"])


def _projections(measured: _Summary, margins: Margins, unit: np.ndarray, lists: np.ndarray, width: int) -> pd.DataFrame:
    """What random projections keep: one to each dimension that is enough, the mean of some to output width or less."""
    rng = np.random.default_rng(measured.seed("projections"))
    queries = np.sort(rng.permutation(measured.n)[: measured.spec["queries"]])
    ks, powers = measured.spec["k"], [2**i for i in range(1, width.bit_length()) if 2**i < width]
    wanted = [("width", np.nan, ks, m, draws(m)) for m in (*powers, width)]
    for quantile in measured.spec["quantiles"]:
        dimensions = dimension_curve(margins.nearest, quantile, measured.spec["confidence"]).value
        wanted += [("enough", quantile, [k], dimensions[k - 1], 1) for k in ks]
    rows = []
    for purpose, quantile, own_ks, m, count in wanted:
        shares = np.stack([kept_by_projection(unit, lists, own_ks, m, queries, rng) for _ in range(count)])
        for k, kept in zip(own_ks, np.moveaxis(shares, 2, 0), strict=True):  # kept (draws, queries)
            row = {"purpose": purpose, "quantile": quantile, "k": k, "dimension": m}
            row["promised"] = (1 - quantile) * (1 - 2 / measured.n)
            for name, values in (("kept_all", kept == 1), ("overlap", kept)):
                interval = bootstrap_mean(values.mean(0), **measured.resampling)
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))
            rows.append(row)
    table = pd.DataFrame(rows)
    return table.assign(
        dataset=measured.spec["dataset"], n=measured.n, model=measured.spec["model"], queries=len(queries)
    )
