"""Geometry summaries -> Table 5 (Procrustes), with the paper's values beside ours."""

from pathlib import Path

import pandas as pd

from lossmap.paper import beside
from lossmap.tables import with_interval, write_csv, write_html

SEEDBENCH = 5624  # images of SEED-Bench, on which the paper reports
NOTE = (
    "Embeddings after the connector, mean-pooled, are rotated onto those before it by the orthogonal map that leaves "
    "the least squared error (Procrustes; principal components where there are more features after, zeros where there"
    " are fewer). Error: distance of an image's two embeddings then, in the unit of the embeddings before, so that "
    "models do not compare; by chance: with images paired at random. Unexplained: share of the variance before the "
    "connector that a map fitted on one half of the images leaves on the other half, each half in turn, 0 none, 1 "
    "all: by a rotation and one scale, by the same on standardised features, and by any linear map (ridge) on "
    "standardised features. Few images for many features leave more, even where nothing is lost. By chance: with "
    "images paired at random. In brackets: bootstrap interval over images. Reported: the paper's values, where the "
    "study has its model and dataset."
)
ERRORS = {
    "mean": "procrustes_error",
    "std": "procrustes_error_std",
    "min": "procrustes_error_min",
    "max": "procrustes_error_max",
}
MAPS = {"rotation": "rotation", "rotation_standardised": "rotation, standardised", "ridge": "ridge"}


def run(*, summaries: list[Path], csv: Path, html: Path, finding: Path, spec: dict) -> None:
    """Gather the alignments of all models and datasets.

    spec: checkpoints (model -> checkpoint), confidence.
    """
    table = _wide(pd.concat([pd.read_parquet(path) for path in summaries], ignore_index=True))
    table = beside(table, "table5", [], list(ERRORS), spec["checkpoints"])
    theirs = (table["dataset"] == "seedbench") & (table["n"] == SEEDBENCH)
    table.loc[~theirs, [f"{name}_reported" for name in ERRORS]] = float("nan")
    write_csv(table, csv)
    write_html(_readable(table), html, "Procrustes alignment across the connector", NOTE, digits=2)
    finding.write_text(_sentences(table, spec["confidence"]))


def _wide(summary: pd.DataFrame) -> pd.DataFrame:
    """One row per dataset and model; the paper's columns have the paper's names."""
    rows = []
    for (dataset, model), group in summary.groupby(["dataset", "model"], sort=False):
        measures = group.set_index("measure")
        error = measures.loc["procrustes_error"]
        row = {"dataset": dataset, "n": error["n"], "model": model}
        row |= {name: measures.loc[measure, "value"] for name, measure in ERRORS.items()}
        row |= {"mean_low": error["low"], "mean_high": error["high"], "mean_chance": error["chance"]}
        for name in MAPS:
            share = measures.loc[f"unexplained_{name}"]
            row |= {f"{name}": share["value"], f"{name}_low": share["low"], f"{name}_high": share["high"]}
            row |= {f"{name}_chance": share["chance"]}
        rows.append(row)
    return pd.DataFrame(rows)


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    columns = {"dataset": table["dataset"], "images": table["n"], "model": table["model"]}
    columns["error"] = with_interval(table, "mean", "mean_low", "mean_high", 2)
    columns |= {name: table[name] for name in ("std", "min", "max")}
    columns["error by chance"] = table["mean_chance"]
    for name in ERRORS:
        if table[f"{name}_reported"].notna().any():
            columns[f"{name}, reported"] = table[f"{name}_reported"]
    for name, title in MAPS.items():
        columns[f"unexplained, {title}"] = with_interval(table, name, f"{name}_low", f"{name}_high", 2)
        if table[f"{name}_chance"].notna().any():
            columns[f"{title}, by chance"] = table[f"{name}_chance"]
    return pd.DataFrame(columns)


def _sentences(table: pd.DataFrame, confidence: float) -> str:
    """One line per model and dataset: what a rotation and what any linear map leave."""
    lines = []
    for row in table.itertuples():
        lines.append(
            f"- **{row.model}** on {row.dataset}, standardised features: a rotation leaves "
            f"{row.rotation_standardised:.1%} [{row.rotation_standardised_low:.1%}, "
            f"{row.rotation_standardised_high:.1%}] of the variance unexplained (chance "
            f"{row.rotation_standardised_chance:.1%}), any linear map {row.ridge:.1%} [{row.ridge_low:.1%}, "
            f"{row.ridge_high:.1%}] (chance {row.ridge_chance:.1%})."
        )
    return "\n".join([*lines, "", f"In brackets: {confidence:.0%} bootstrap interval over images.", ""])
