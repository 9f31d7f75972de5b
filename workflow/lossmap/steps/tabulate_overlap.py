"""Overlap summaries -> table figure3, with the paper's values beside ours."""

from pathlib import Path

import pandas as pd

from lossmap.paper import beside
from lossmap.tables import write_csv, write_html

NOTE = (
    "Mean share of an image's k nearest neighbours (mean-pooled embeddings) that are the same before and after the "
    "connector, the image itself left out. low, high: bootstrap interval over images. chance: k / (n - 1). null_low, "
    "null_high, p_permutation: overlap when images are paired at random. overlap_corrected: 0 at chance, 1 if all are "
    "kept. overlap_paper_convention: each image counted among its own neighbours. overlap_reported: the paper's value."
)


def run(*, summaries: list[Path], csv: Path, html: Path, finding: Path, spec: dict) -> None:
    """Gather the overlap summaries of all models and datasets into the table behind Figure 3.

    spec: checkpoints (model -> checkpoint), confidence.
    """
    table = pd.concat([pd.read_parquet(path) for path in summaries], ignore_index=True)
    reported = beside(table[table["metric"] == "l2"], "figure3", {"overlap": "overlap_reported"}, spec["checkpoints"])
    table = table.merge(reported[["dataset", "model", "metric", "k", "overlap_reported"]], how="left")
    write_csv(table, csv)
    write_html(table, html, "k-NN overlap ratio before and after the connector", NOTE)
    finding.write_text(_sentences(table, spec["confidence"]))


def _sentences(table: pd.DataFrame, confidence: float) -> str:
    """One line per model, for the report: the range of its overlap over datasets at the smallest k."""
    k = table["k"].min()
    rows = table[(table["metric"] == "l2") & (table["k"] == k)]
    lines = []
    for model, group in rows.groupby("model", sort=False):
        each = ", ".join(
            f"{row.overlap:.2f} [{row.low:.2f}, {row.high:.2f}] on {row.dataset} (chance {row.chance:.2f})"
            for row in group.itertuples()
        )
        lines.append(f"- **{model}** keeps this share of the {k} nearest neighbours: {each}.")
    return "\n".join([*lines, "", f"In brackets: {confidence:.0%} bootstrap interval over images.", ""])
