"""Embeddings, neighbour lists -> how the two sides of the connector lie to each other, and why neighbours change."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lossmap.measures.dimension import effective_rank, intrinsic_dimension
from lossmap.measures.distortion import pair_changes, pair_quantiles, unit_rows
from lossmap.measures.margins import Margins, neighbour_margins
from lossmap.measures.overlap import chance_overlap
from lossmap.measures.planner import dimension_curve, draws, kept_by_projection, quantile_curve, sampling_margin
from lossmap.measures.procrustes import align, first_components, shuffled_error, unexplained_shares
from lossmap.measures.resampling import ratio_interval
from lossmap.measures.similarity import chance_trustworthiness, debiased_cka, order_agreement, trustworthiness
from lossmap.measures.statistics import bootstrap_mean
from lossmap.neighbour_lists import STAGES, read_lists
from lossmap.seeds import seed_for
from lossmap.store import open_store


def run(
    *,
    embeddings: Path,
    lists: Path,
    alignment: Path,
    neighbours: Path,
    summary: Path,
    plan: Path,
    projections: Path,
    spec: dict,
    threads: int = 1,
) -> None:
    """Measure alignment, similarity, margins and the dimension that a random projection would need.

    alignment: per image, its error and its place in Figure 6. neighbours: per image and k, margins and ranks. summary:
    one row per measure and k, with interval and chance level. plan: dimension needed, per margin quantile and k.
    projections: what random projections keep.
    spec: dataset, model, k, quantiles (of margins), delta, queries (images on which projections are checked),
    confidence, resamples, seed.
    """
    torch.set_num_threads(threads)
    store = open_store(embeddings)
    before, after = (store[f"{stage}_mean"].values for stage in STAGES)
    image_ids, found = read_lists(lists)
    by_cosine = [found["ip", stage] for stage in STAGES]
    measured = _Summary(spec, len(before))

    images = _alignment(measured, before, after)
    images.insert(0, "image_id", image_ids)
    images.to_parquet(alignment, index=False)

    _similarity(measured, before, after, [found["l2", stage] for stage in STAGES])
    line, typical = _distortion(measured, before, after)
    margins = neighbour_margins(before, after, *by_cosine, spec["k"], line, typical)
    _neighbours(measured, margins, image_ids).to_parquet(neighbours, index=False)

    unit = unit_rows(before, "before")
    _plan(measured, margins).to_parquet(plan, index=False)
    _projections(measured, margins, unit, by_cosine[0], after.shape[1]).to_parquet(projections, index=False)
    pd.DataFrame(measured.rows).astype({"k": "Int64"}).to_parquet(summary, index=False)


class _Summary:
    """What all measures share: settings, seeds, and the rows of the summary."""

    def __init__(self, spec: dict, n: int):
        self.spec, self.n, self.rows = spec, n, []
        self.resampling = {
            "resamples": spec["resamples"],
            "confidence": spec["confidence"],
            "seed": self.seed("images"),
        }

    def seed(self, purpose: str) -> int:
        return seed_for(self.spec["seed"], "measure_geometry", self.spec["dataset"], self.spec["model"], purpose)

    def add(self, measure: str, interval, k: int | None = None, chance: float = np.nan, n: int | None = None) -> None:
        """One row of the summary; k is missing where a measure has none."""
        place = {"dataset": self.spec["dataset"], "n": n or self.n, "model": self.spec["model"]}
        value, low, high = interval
        row = {"measure": measure, "k": k, "value": value, "low": low, "high": high, "chance": chance}
        self.rows.append({**place, **row})

    def add_mean(self, measure: str, values: np.ndarray, k: int | None = None, chance: float = np.nan) -> None:
        self.add(measure, bootstrap_mean(values, **self.resampling), k, chance)


def _alignment(measured: _Summary, before: np.ndarray, after: np.ndarray) -> pd.DataFrame:
    """Procrustes as in the paper, shares of variance on held-out images; per image, its error and place in Figure 6."""
    laid = align(before, after)
    rng = np.random.default_rng(measured.seed("alignment"))
    measured.add_mean("procrustes_error", laid.errors, chance=shuffled_error(laid, rng))
    for name in ("std", "min", "max"):
        measured.add(f"procrustes_error_{name}", (getattr(laid.errors, name)(), np.nan, np.nan))
    shares = unexplained_shares(before, after, rng)
    chances = {"rotation_standardised": "rotation_shuffled", "ridge": "ridge_shuffled"}
    for name in ("rotation", *chances):
        errors, variances = shares[name]
        interval = ratio_interval(errors, variances, **measured.resampling)
        chance = np.nan
        if name in chances:
            errors, variances = shares[chances[name]]
            chance = errors.sum() / variances.sum()
        measured.add(f"unexplained_{name}", interval, chance=chance, n=len(errors))
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
    measured.add("cka", debiased_cka(before, after, **measured.resampling), chance=0)
    for stage, x, nearest in zip(STAGES, (before, after), lists, strict=True):
        measured.add(f"effective_rank_{stage}", effective_rank(x, **measured.resampling))
        dimension = intrinsic_dimension(x, nearest, **measured.resampling)
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


def _neighbours(measured: _Summary, margins: Margins, image_ids: np.ndarray) -> pd.DataFrame:
    """Margins, ties and ranks of every image and k, and what they come to."""
    ks, n = measured.spec["k"], measured.n
    overlap, bound, sharper = margins.overlap(ks), margins.bound(ks), margins.sharper_bound(ks)
    guaranteed = sampling_margin(margins.inside - margins.outside, margins.density, n, measured.spec["delta"])
    measured.add_mean("epsilon", margins.epsilon)
    frames = []
    for j, k in enumerate(ks):
        columns = {
            "margin": (margins.inside - margins.outside)[:, j],
            "epsilon": margins.epsilon,
            **{name: getattr(margins, name)[:, j] for name in ("ties", "lost", "near_ties", "own_ties", "closeness")},
            "overlap": overlap[:, j],
            "bound": bound[:, j],
            "sharper_bound": sharper[:, j],
            "guaranteed_margin": guaranteed[:, j],
        }
        measured.add_mean("mutual_neighbours", overlap[:, j], k, chance_overlap(n, k))
        if 2 * k < n:  # beyond, trustworthiness is not defined
            columns["trustworthiness"] = trustworthiness(margins.ranks_before[:, :k], n)
            columns["continuity"] = trustworthiness(margins.ranks_after[:, :k], n)
            for name in ("trustworthiness", "continuity"):
                measured.add_mean(name, columns[name], k, chance_trustworthiness(n, k))
        if k > 1:
            columns["kendall"], columns["spearman"] = order_agreement(margins.ranks_after[:, :k])
            for name in ("kendall", "spearman"):
                measured.add_mean(name, columns[name], k, 0)
        median = quantile_curve(columns["margin"][:, None], 0.5, measured.spec["confidence"])
        measured.add("margin_median", [part[0] for part in median], k)
        close = columns["closeness"][~np.isnan(columns["closeness"])]
        measured.add(
            "closeness", bootstrap_mean(close, **measured.resampling) if len(close) else [np.nan] * 3, k, 0, len(close)
        )
        for name in ("near_ties", "own_ties"):
            measured.add(f"share_{name}", ratio_interval(columns[name], columns["lost"], **measured.resampling), k)
        for name, holds in (
            ("bound_holds", (overlap >= bound) & (overlap >= sharper)),
            ("bound_says_something", sharper > 0),
            ("margin_guaranteed", guaranteed > 0),
        ):
            measured.add_mean(name, holds[:, j].astype(float), k)
        frames.append(pd.DataFrame({"image_id": image_ids, "k": k, **columns}))
    return pd.concat(frames)


def _plan(measured: _Summary, margins: Margins) -> pd.DataFrame:
    """Dimension that a random projection needs, for every k up to the largest and each margin quantile."""
    frames = []
    for quantile in measured.spec["quantiles"]:
        curve = dimension_curve(margins.nearest, quantile, measured.spec["confidence"])
        k = np.arange(1, len(curve.value) + 1)
        frames.append(pd.DataFrame({"quantile": quantile, "k": k, **curve._asdict()}))
    table = pd.concat(frames).rename(columns={"value": "dimension"})
    return table.assign(dataset=measured.spec["dataset"], n=measured.n, model=measured.spec["model"])


def _projections(measured: _Summary, margins: Margins, unit: np.ndarray, lists: np.ndarray, width: int) -> pd.DataFrame:
    """What random projections keep: one to each planned dimension; the mean of some to the output width and fewer."""
    rng = np.random.default_rng(measured.seed("projections"))
    queries = np.sort(rng.permutation(measured.n)[: measured.spec["queries"]])
    ks, powers = measured.spec["k"], [2**i for i in range(1, width.bit_length()) if 2**i < width]
    wanted = [("width", np.nan, ks, m, draws(m)) for m in (*powers, width)]
    for quantile in measured.spec["quantiles"]:
        dimensions = dimension_curve(margins.nearest, quantile, measured.spec["confidence"]).value
        wanted += [("planned", quantile, [k], dimensions[k - 1], 1) for k in ks]
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
