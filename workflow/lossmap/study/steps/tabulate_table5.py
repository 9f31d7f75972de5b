"""Geometry summaries -> Table 5 (Procrustes), with the paper's values beside ours."""

from pathlib import Path

import pandas as pd

from lossmap.study.paper import beside
from lossmap.study.tables import interval_text, read_all, with_interval, write_csv, write_html

SEEDBENCH = 5624  # images of SEED-Bench, on which the paper reports
NOTE = (
    "Embeddings after the connector, mean-pooled, are rotated onto those before it by the orthogonal map that leaves "
    "the least squared error (Procrustes; principal components where there are more features after, zeros where there "
    "are fewer). Residual: Euclidean distance of an image's two embeddings then, in the unit of the embeddings before, "
    "so that models do not compare; its mean, standard deviation, smallest and largest over images; by chance: with "
    "images paired at random. FVU: fraction of the variance before the connector that a map fitted on one half of the "
    "images leaves unexplained on the other half, each half in turn, 0 none, 1 all: by a rotation and one scale, by "
    "the same on standardised features, and by any linear map (ridge) on standardised features. Few images for many "
    "features leave more, even where nothing is lost. By chance: with images paired at random. In brackets: bootstrap "
    "interval over images. Reported: the paper's values, where the study has its model and dataset."
)
# Of the distances that are left of the images -> the measure of the summary, and its name in the table.
RESIDUALS = {
    "residual_mean": ("procrustes_error", "mean"),
    "residual_std": ("procrustes_error_std", "standard deviation"),
    "residual_min": ("procrustes_error_min", "smallest"),
    "residual_max": ("procrustes_error_max", "largest"),
}
MAPS = {
    "unexplained_rotation": "rotation",
    "unexplained_rotation_standardised": "rotation of standardised features",
    "unexplained_ridge": "ridge",
}


def run(*, summaries: list[Path], csv: Path, html: Path, finding: Path, spec: dict) -> None:
    """Gather the alignments of all models and datasets.

    spec: checkpoints (model -> checkpoint), confidence.
    """
    table = _wide(read_all(summaries))
    table = beside(table, "table5", [], list(RESIDUALS), spec["checkpoints"])
    theirs = (table["dataset"] == "seedbench") & (table["n"] == SEEDBENCH)
    table.loc[~theirs, [f"{name}_reported" for name in RESIDUALS]] = float("nan")
    write_csv(table, csv)
    write_html(_readable(table), html, "Procrustes alignment across the connector", NOTE, digits=2)
    finding.write_text(_sentences(table, spec["confidence"]))


def _wide(summary: pd.DataFrame) -> pd.DataFrame:
    """One row per dataset and model."""
    rows = []
    for (dataset, model), group in summary.groupby(["dataset", "model"], sort=False):
        measures = group.set_index("measure")
        error = measures.loc["procrustes_error"]
        row = {"dataset": dataset, "n": error["n"], "model": model}
        row |= {name: measures.loc[measure, "value"] for name, (measure, _) in RESIDUALS.items()}
        row |= {f"residual_mean_{end}": error[end] for end in ("low", "high", "chance")}
        for name in MAPS:
            share = measures.loc[name]
            row |= {name: share["value"], **{f"{name}_{end}": share[end] for end in ("low", "high", "chance")}}
        rows.append(row)
    return pd.DataFrame(rows)


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    columns = {"dataset": table["dataset"], "images": table["n"], "model": table["model"]}
    for name, (_, title) in RESIDUALS.items():
        columns[f"residual, {title}"] = (
            with_interval(table, name, f"{name}_low", f"{name}_high", 2) if f"{name}_low" in table else table[name]
        )
        if f"{name}_chance" in table:
            columns[f"residual, {title}, by chance"] = table[f"{name}_chance"]
        if table[f"{name}_reported"].notna().any():
            columns[f"residual, {title}, reported"] = table[f"{name}_reported"]
    for name, title in MAPS.items():
        columns[f"FVU, {title}"] = with_interval(table, name, f"{name}_low", f"{name}_high", 3)
        if table[f"{name}_chance"].notna().any():
            columns[f"FVU, {title}, by chance"] = table[f"{name}_chance"]
    return pd.DataFrame(columns)


def _sentences(table: pd.DataFrame, confidence: float) -> str:
    """One line per model and dataset: what a rotation and what any linear map leave."""
    lines = []
    for row in table.to_dict("records"):
        rotation, ridge = (
            f"{interval_text(row[name], row[f'{name}_low'], row[f'{name}_high'], 3)} (chance "
            f"{row[f'{name}_chance']:.3f})"
            for name in ("unexplained_rotation_standardised", "unexplained_ridge")
        )
        lines.append(
            f"- **{row['model']}** on {row['dataset']}, fraction of the variance of standardised features left "
            f"unexplained: {rotation} by a rotation, {ridge} by any linear map."
        )
    return "\n".join([*lines, "", f"In brackets: {confidence:.0%} bootstrap interval over images.", ""])
