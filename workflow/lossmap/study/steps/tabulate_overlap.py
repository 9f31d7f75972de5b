"""Overlap summaries -> table figure3, with the paper's values beside ours."""

from pathlib import Path

import pandas as pd

from lossmap.study.columns import METRICS
from lossmap.study.paper import beside
from lossmap.study.tables import about_copies, p_value, read_all, with_interval, write_csv, write_html

NOTE = (
    "Share of an image's k nearest neighbours (mean-pooled embeddings, by Euclidean distance or cosine) "
    "that are the same before and after the connector, the image itself left out: mean and {confidence} "
    "interval for the population of which the images are a sample (each image counts as a query and as a neighbour of "
    "others). Copies: images with the pixels or the embedding of another. Equally near neighbours share their places: "
    "expected value over random orders. Chance: k / (n - 1). By permutation: the central {confidence} of the means "
    "when images are paired at random; p: share of those means that reach ours (one-sided), <= where none does. Above "
    "chance: 0 at chance, 1 if all are kept. Paper's convention: each image counts among its own neighbours, and of "
    "equally near ones the first. Reported: the paper's value, in its convention, where the study has its model and "
    "dataset."
)


def run(*, summaries: list[Path], csv: Path, html: Path, finding: Path, spec: dict) -> None:
    """Gather the overlap summaries of all models and datasets into the table behind Figure 3.

    spec: checkpoints (model -> checkpoint), permutations, confidence.
    """
    table = read_all(summaries)
    measured = table["n"]
    table["n"] = table["images"]  # the paper counts all
    table = beside(table, "figure3", ["dataset", "n", "k"], ["overlap"], spec["checkpoints"])
    table["n"] = measured.to_numpy()
    table.loc[table["metric"] != "euclidean", "overlap_reported"] = float("nan")  # the paper's Figure 3 is by distance
    write_csv(table, csv)
    note = NOTE.format(confidence=f"{spec['confidence']:.0%}")
    least = 1 / (1 + spec["permutations"])
    write_html(_readable(table, least), html, "k-NN overlap ratio before and after the connector", note)
    finding.write_text(_sentences(table, spec["confidence"], least))


def _readable(table: pd.DataFrame, least: float) -> pd.DataFrame:
    """The table with intervals beside their values."""
    columns = {
        "dataset": table["dataset"],
        "images": table["n"],
        "copies": table["copies"],
        "model": table["model"],
        "metric": table["metric"].map(METRICS),
        "k": table["k"],
        "overlap": with_interval(table, "overlap", "low", "high", 3),
        "chance": table["chance"],
        "by permutation": [
            f"{low:.3f} to {high:.3f}" for low, high in zip(table["null_low"], table["null_high"], strict=True)
        ],
        "p": [_p(p, least) for p in table["p_permutation"]],
        "above chance": table["overlap_corrected"],
        "paper's convention": table["overlap_paper_convention"],
        "reported": table["overlap_reported"],
    }
    return pd.DataFrame(columns)


def _sentences(table: pd.DataFrame, confidence: float, least: float) -> str:
    """One line per model, for the report: the range of its overlap over datasets at the smallest k."""
    k, metric = table["k"].min(), table["metric"].iloc[0]
    rows = table[(table["metric"] == metric) & (table["k"] == k)]
    lines = []
    for model, group in rows.groupby("model", sort=False):
        each = ", ".join(
            f"{row.overlap:.2f} [{row.low:.2f}, {row.high:.2f}] on {row.dataset} "
            f"(chance {row.chance:.2f}, p {_compared(row.p_permutation, least)})"
            for row in group.itertuples()
        )
        lines.append(f"- **{model}** keeps this share of the {k} nearest neighbours by {METRICS[metric]}: {each}.")
    copies = [f"- {line}" for line in about_copies(table)]
    brackets = f"In brackets: {confidence:.0%} interval for the population of which the images are a sample."
    return "\n".join([*lines, *copies, "", brackets, ""])


def _compared(p: float, least: float) -> str:
    text = _p(p, least)
    return text if text.startswith("<=") else f"= {text}"


def _p(p: float, least: float) -> str:
    return p_value(p, at_floor=p <= least * (1 + 1e-9))
