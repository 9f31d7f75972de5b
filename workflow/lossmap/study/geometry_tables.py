"""Layouts of the tables on geometry: rows of summaries -> what a reader sees, and the finding in sentences."""

import numpy as np
import pandas as pd

from lossmap.study.tables import interval_text, with_interval

MEASURES = {
    "similarity": {
        "cka": "CKA",
        "mutual_neighbours": "overlap, cosine",
        "trustworthiness": "trustworthiness",
        "continuity": "continuity",
        "kendall": "order kept, Kendall's tau",
        "spearman": "order kept, Spearman's rho",
        "effective_rank_pre": "effective rank, before",
        "effective_rank_post": "effective rank, after",
        "intrinsic_dimension_pre": "intrinsic dimension, before",
        "intrinsic_dimension_post": "intrinsic dimension, after",
    },
    "margins": {
        "mutual_neighbours": "overlap, cosine",
        "share_near_ties": "near-ties",
        "share_moved": "moved across a clear margin",
        "share_own_ties": "within the connector's own change",
        "closeness": "closeness kept",
        "margin_median": "median margin",
        "cosine_change_q50": "change of a cosine, median",
        "cosine_residual_q50": "change of a cosine, beyond the best line, median",
        "cosine_residual_q95": "change of a cosine, beyond the best line, 95% quantile",
        "distance_ratio_q01": "distance ratio, 1% quantile",
        "distance_ratio_q99": "distance ratio, 99% quantile",
        "bound_holds": "bound holds",
        "bound_says_something": "bound above 0",
    },
    "probe": {
        "response_random": "response, random directions",
        "response_random_spread": "spread over patches, random directions",
        "response_random_unseen": "patches not seen, random directions",
        "response_random_loss_partial": "partial rho with loss, random directions",
        "response_random_loss": "raw rho with loss, random directions",
        "response_towards": "response, towards other images",
        "response_towards_spread": "spread over patches, towards other images",
        "response_towards_unseen": "patches not seen, towards other images",
        "response_towards_loss_partial": "partial rho with loss, towards other images",
        "response_towards_loss": "raw rho with loss, towards other images",
    },
}
DIGITS = {"effective_rank_pre": 1, "effective_rank_post": 1, "margin_median": 4}


def with_moved(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary with rows share_moved: what is left of the lost neighbours beside the near-ties."""
    ties = summary[summary["measure"] == "share_near_ties"]
    moved = ties.assign(measure="share_moved", value=1 - ties["value"], low=1 - ties["high"], high=1 - ties["low"])
    return pd.concat([summary, moved], ignore_index=True)


def readable(summary: pd.DataFrame, table: str) -> pd.DataFrame:
    """One row per dataset, model and k; a column per measure of the table that the summary holds.

    Measures without k stand in every row. similarity: the smallest k alone.
    """
    ks = _ks(summary) or [None]
    rows = []
    for (dataset, model), group in summary.groupby(["dataset", "model"], sort=False):
        for k in ks[:1] if table == "similarity" else ks:
            row = {"dataset": dataset, "images": group["n"].max(), "model": model} | ({"k": k} if k else {})
            for measure, title in MEASURES[table].items():
                found = group[(group["measure"] == measure) & (group["k"].isna() | (group["k"] == k))]
                if len(found):
                    value, low, high, chance = found.iloc[0][["value", "low", "high", "chance"]]
                    beside = f", chance {chance:.2f}" if chance > 0 else ""
                    row[title] = interval_text(value, low, high, DIGITS.get(measure, 2)) + beside
            rows.append(row)
    return pd.DataFrame(rows)


def _ks(summary: pd.DataFrame) -> list[int]:
    """The numbers of neighbours of a summary; measures without have none."""
    return sorted(int(k) for k in summary["k"].dropna().unique())


def one(summary: pd.DataFrame, dataset: str, model: str, measure: str, k: int | None = None) -> pd.Series | None:
    """The row of one measure, without k or with this one; None where the summary has none."""
    found = summary[
        (summary["dataset"] == dataset)
        & (summary["model"] == model)
        & (summary["measure"] == measure)
        & (summary["k"].isna() if k is None else summary["k"] == k)
    ]
    return found.iloc[0] if len(found) else None


def sentences(summary: pd.DataFrame, table: str) -> list[str]:
    """One line per model and dataset, at the smallest k."""
    k = min(_ks(summary), default=None)
    lines = []
    for dataset, model in summary[["dataset", "model"]].drop_duplicates().itertuples(index=False):

        def shown(measure, own_k=None, digits=2, dataset=dataset, model=model):
            row = one(summary, dataset, model, measure, own_k)
            return interval_text(row["value"], row["low"], row["high"], digits)

        start = f"- **{model}** on {dataset}"
        if table == "similarity":
            lines.append(
                f"{start}: CKA {shown('cka')}; effective rank {shown('effective_rank_pre', digits=0)} before, "
                f"{shown('effective_rank_post', digits=0)} after; intrinsic dimension "
                f"{shown('intrinsic_dimension_pre', digits=1)} before, "
                f"{shown('intrinsic_dimension_post', digits=1)} after."
            )
        elif table == "margins":
            lines.append(
                f"{start}: overlap {shown('mutual_neighbours', k)} at k = {k} by cosine. Of the lost neighbours, a "
                f"share of {shown('share_near_ties', k)} were near-ties, {shown('share_moved', k)} were moved across a "
                f"clear margin. Closeness kept: {shown('closeness', k)}."
            )
        else:
            loss = ""
            if one(summary, dataset, model, "response_random_loss") is not None:
                loss = (
                    f" Rank correlation with the loss of the same patches, given their norm: "
                    f"{shown('response_random_loss_partial')} (raw: {shown('response_random_loss')})."
                )
            lines.append(
                f"{start} ({one(summary, dataset, model, 'response_random')['n']} images): response "
                f"{shown('response_random')} in random directions, {shown('response_towards')} towards other images; "
                f"share of patches not seen: {shown('response_random_unseen', digits=3)} in random directions, "
                f"{shown('response_towards_unseen', digits=3)} towards other images.{loss}"
            )
    return lines


def random_projection_table(summary: pd.DataFrame, dimensions: pd.DataFrame, projections: pd.DataFrame) -> pd.DataFrame:
    """One row per dataset, model, k and margin quantile: dimension that is enough, its band, what it promised and kept.

    Beside it, the same in all rows of a k: what the connector keeps (overlap_connector), what a random projection to
    its width keeps (overlap_width), and the width to which a random projection keeps as much as the connector
    (equivalent; interpolated on a logarithmic scale, nan where it lies outside 2 to the width).
    """
    keys = ["dataset", "model", "k"]
    enough = projections[projections["purpose"] == "enough"].drop(columns="purpose")
    bands = dimensions[["dataset", "model", "k", "quantile", "low", "high"]]
    bands = bands.rename(columns={"low": "dimension_low", "high": "dimension_high"})
    table = enough.merge(bands, on=[*keys, "quantile"], how="left", validate="one_to_one")
    kept = summary[summary["measure"] == "mutual_neighbours"].set_index(keys)["value"]
    guaranteed = summary[summary["measure"] == "margin_guaranteed"].set_index(keys)["value"]
    beside = []
    for key, group in projections[projections["purpose"] == "width"].groupby(keys, sort=False):
        curve = group.sort_values("dimension")
        equivalent = equivalent_dimension(curve["dimension"].to_numpy(), curve["overlap"].to_numpy(), kept[key])
        last = curve.iloc[-1]
        row = dict(zip(keys, key, strict=True)) | {"width": last["dimension"], "overlap_width": last["overlap"]}
        row |= {"overlap_connector": kept[key], "equivalent": equivalent, "guaranteed": guaranteed[key]}
        beside.append(row)
    return table.merge(pd.DataFrame(beside), on=keys, how="left", validate="many_to_one")


def equivalent_dimension(dimensions: np.ndarray, overlaps: np.ndarray, wanted: float) -> float:
    """Dimension at which a curve of overlaps reaches a value, interpolated on a logarithmic scale; nan outside it."""
    rising = np.maximum.accumulate(overlaps)
    if not rising[0] <= wanted <= rising[-1]:
        return np.nan
    return float(2 ** np.interp(wanted, rising, np.log2(dimensions)))


def readable_random_projection(table: pd.DataFrame) -> pd.DataFrame:
    """The same table with dimensions as people write them."""
    columns = {"dataset": table["dataset"], "images": table["n"], "model": table["model"], "k": table["k"]}
    columns["margins given up"] = table["quantile"]
    columns["dimension"] = [
        f"{in_short(row.dimension)} [{in_short(row.dimension_low)}, {in_short(row.dimension_high)}]"
        for row in table.itertuples()
    ]
    columns["images that keep all, promised"] = table["promised"]
    columns["images that keep all, measured"] = with_interval(table, "kept_all", "kept_all_low", "kept_all_high", 3)
    columns["overlap, projection to this dimension"] = with_interval(table, "overlap", "overlap_low", "overlap_high", 3)
    columns["overlap, connector"] = table["overlap_connector"]
    columns["overlap, projection to the connector's width"] = table["overlap_width"]
    columns["connector's width"] = table["width"].astype(int)
    columns["width of equal overlap"] = [in_short(value) for value in table["equivalent"]]
    columns["guaranteed beyond the sample"] = table["guaranteed"]
    return pd.DataFrame(columns)


def random_projection_sentences(table: pd.DataFrame) -> list[str]:
    """One line per model and dataset, at the smallest k and the quantile nearest to one half."""
    rows = table[table["k"] == table["k"].min()]
    nearest = (rows["quantile"] - 0.5).abs().min()
    lines = []
    for row in rows[(rows["quantile"] - 0.5).abs() == nearest].itertuples():
        worth = "" if np.isnan(row.equivalent) else f", as much as a random projection to {in_short(row.equivalent)}"
        lines.append(
            f"- **{row.model}** on {row.dataset}: to keep all {row.k} neighbours (by cosine) of {1 - row.quantile:.0%} "
            f"of the images, {in_short(row.dimension)} [{in_short(row.dimension_low)}, {in_short(row.dimension_high)}] "
            f"dimensions are guaranteed to be enough (measured: {row.kept_all:.0%} keep all). A random projection to "
            f"the connector's {row.width:.0f} has an overlap of {row.overlap_width:.2f}; the connector's is "
            f"{row.overlap_connector:.2f}{worth}. Images whose margin is guaranteed beyond the sample: "
            f"{row.guaranteed:.0%}{'; for the others, no finite dimension is' if row.guaranteed < 1 else ''}."
        )
    return lines


def in_short(value: float) -> str:
    """A dimension in two digits: 96, 1.0 million; "none" where no finite one is enough; "–" where it is not known."""
    if np.isnan(value):
        return "–"
    if np.isinf(value):
        return "none"
    for size, word in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if value >= size:
            return f"{value / size:.2g}{word}" if value < 100 * size else f"{value / size:.0f}{word}"
    return f"{value:.0f}"
