"""Comparisons of all pairs of models -> one table of their differences."""

from pathlib import Path

import pandas as pd

from lossmap.study.columns import METRICS
from lossmap.study.scoring import SCORE_NAMES
from lossmap.study.tables import interval_text, with_interval, write_csv, write_html

MEASURES = {"overlap": "overlap", "FVU": "FVU of patches", **SCORE_NAMES}
NOTE = (
    "Difference: tuned less base, of the same images; in brackets its {confidence:.0%} interval over images. Overlap: "
    "of each model's own embeddings before and after its connector; the interval counts each image as a query and as a "
    "neighbour. FVU: fraction of variance unexplained by each model's best reconstructor; more is lost. Scores: more "
    "is better; images are drawn, each with all its questions. Equal before: share of the bytes of the embeddings "
    "before the connector that both models have in common. 1: tower and preprocessing are the same, so that overlap "
    "and FVU differ by the connector alone. The interval covers other images, not another fine-tuning run."
)


def run(*, comparisons: list[Path], csv: Path, html: Path, finding: Path, spec: dict) -> None:
    """Gather the comparisons of step compare_models. spec: confidence."""
    table = pd.concat([pd.read_parquet(path) for path in comparisons], ignore_index=True)
    write_csv(table, csv)
    note = NOTE.format(confidence=spec["confidence"])
    write_html(_readable(table), html, "Fine-tuned models and their bases: paired differences", note)
    finding.write_text(_sentences(table, spec["confidence"]))


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table with intervals beside their values, without columns that hold nothing."""
    columns = {
        "dataset": table["dataset"],
        "base": table["base"],
        "tuned": table["tuned"],
        "measure": table["measure"].map(MEASURES),
        "metric": table["metric"].map(METRICS),
        "k": table["k"],
        "images": table["n"],
        "value, base": table["value_base"],
        "value, tuned": table["value_tuned"],
        "tuned - base": with_interval(table, "difference", "low", "high", 3),
        "equal before": table["equal_pre"],
        "undefined, because": table["reason"],
    }
    return pd.DataFrame(columns).dropna(axis="columns", how="all")


def _sentences(table: pd.DataFrame, confidence: float) -> str:
    """One line per pair: what both sides of the connector have in common, and the differences without 0."""
    lines = []
    for (base, tuned), rows in table.groupby(["base", "tuned"], sort=False):
        equal = rows["equal_pre"].min()
        tower = (
            "the embeddings before the connector are the same bytes"
            if equal == 1
            else f"of the bytes before the connector at least {equal:.0%} are the same on each dataset"
        )
        defined = rows.dropna(subset=["low", "high"])
        away = defined[(defined["low"] > 0) | (defined["high"] < 0)]
        lines.append(f"- **{tuned}** less **{base}**: {tower}; {len(away)} of {len(defined)} intervals are without 0.")
        lines += [f"  - {_sentence(row)}" for row in away.itertuples()]
    return "\n".join([*lines, "", f"In brackets: {confidence:.0%} interval over images.", ""])


def _sentence(row) -> str:
    where = f" at k = {row.k} ({METRICS[row.metric]})" if row.measure == "overlap" else ""
    return (
        f"{MEASURES[row.measure]}{where} on {row.dataset}: {interval_text(row.difference, row.low, row.high, 3)} "
        f"(base {row.value_base:.3f}, n = {row.n})"
    )
