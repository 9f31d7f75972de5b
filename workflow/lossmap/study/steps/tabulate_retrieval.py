"""Retrieval summaries -> Tables 2 and 8, with the paper's values beside ours."""

from pathlib import Path

import pandas as pd

from lossmap.study.columns import METRICS
from lossmap.study.neighbour_lists import STAGES
from lossmap.study.paper import beside
from lossmap.study.tables import about_copies, interval_text, read_all, with_interval, write_csv, write_html

CUB_TEST = 5794  # images of the test split of CUB-200-2011, on which the paper reports
NOTE = (
    "R@r: share of queries with an image of their own class among the r nearest, by {metric} of mean-pooled "
    "embeddings, the query left out; before (pre) and after (post) the connector. Overlap (k-NN overlap ratio, KNOR): "
    "share of the {k} nearest neighbours that are kept, by the same metric. rho: rank correlation of a query's R@{r} "
    "with its overlap; partial, and the finding: given the size of its class, and how often it is itself among the {k} "
    "nearest of others before the connector; raw: without that, as in the paper. In brackets: interval for the "
    "population of which the images are a sample (each counts as a query and as a neighbour of others). Copies: images "
    "with the pixels or the embedding of another. Where no query changed, the interval of post - pre is the exact "
    "upper bound on the share of queries that may change (Clopper-Pearson, queries as if independent). Equally near "
    "neighbours share their places: expected value over random orders. Reported: the paper's value, where the study "
    "has its model and dataset; its overlap counts the query among its own neighbours, as overlap_paper_convention in "
    "the CSV file does."
)


def run(*, summaries: list[Path], csv: Path, html: Path, finding: Path, spec: dict) -> None:
    """Gather the retrieval summaries of all models and datasets for one metric, in the paper's layout.

    spec: metric (euclidean: Table 2, cosine: 8), recall, overlap_k, checkpoints (model -> checkpoint), confidence.
    """
    table = read_all(summaries)
    table = table[table["metric"] == spec["metric"]].reset_index(drop=True)
    values = [f"recall_at_{r}" for r in spec["recall"] if r in (1, 5)]
    if spec["overlap_k"] == 100 and max(spec["recall"]) == 5:
        values += ["overlap_k100", "spearman_r5_overlap"]
    ours = beside(table, "table2_table8", ["metric", "stage"], values, spec["checkpoints"])
    theirs = (ours["dataset"] == "cub") & (ours["images"] == CUB_TEST)
    ours.loc[~theirs, [f"{name}_reported" for name in values]] = float("nan")
    write_csv(ours, csv)
    metric = METRICS[spec["metric"]]
    note = NOTE.format(metric=metric, k=spec["overlap_k"], r=max(spec["recall"]))
    write_html(_papers_layout(ours, spec), html, f"Retrieval by class, {metric}", note)
    finding.write_text(_sentences(ours, spec))


def _papers_layout(table: pd.DataFrame, spec: dict) -> pd.DataFrame:
    """One row per dataset and model: recall before and after, overlap, and how the two go together."""
    rows, k, largest = [], spec["overlap_k"], max(spec["recall"])
    for (dataset, model), group in table.groupby(["dataset", "model"], sort=False):
        first = group.iloc[0]
        row = {"dataset": dataset, "images": first["n"], "copies": first["copies"], "classes": first["classes"]}
        row["model"] = model
        cells = [(f"R@{r}, {stage}", stage, f"recall_at_{r}", 3) for stage in STAGES for r in spec["recall"]]
        cells += [(f"R@{r}, post - pre", "pre", f"recall_at_{r}_change", 3) for r in spec["recall"]]
        cells.append((f"overlap, k = {k}", "pre", f"overlap_k{k}", 3))
        for kind, name in (("partial", "partial"), ("raw", "spearman")):
            cells += [(f"{kind} rho, {stage}", stage, f"{name}_r{largest}_overlap", 2) for stage in STAGES]
        for title, stage, name, digits in cells:
            side = group[group["stage"] == stage]
            row[title] = with_interval(side, name, f"{name}_low", f"{name}_high", digits).iloc[0]
            reported = f"{name}_reported"
            if reported in side and side[reported].notna().any():
                row[f"{title}, reported"] = f"{side[reported].iloc[0]:.{4 if name.startswith('recall') else 2}f}"
        rows.append(row)
    return pd.DataFrame(rows)


def _sentences(table: pd.DataFrame, spec: dict) -> str:
    """One line per model and dataset, for the report: recall before and after, with interval."""
    r, lines = max(spec["recall"]), []
    for (dataset, model), group in table.groupby(["dataset", "model"], sort=False):
        sides = group.set_index("stage")
        each = " to ".join(
            interval_text(*(sides.loc[stage, f"recall_at_{r}{end}"] for end in ("", "_low", "_high")), 3)
            for stage in STAGES
        )
        metric = METRICS[spec["metric"]]
        change = (sides.loc["pre", f"recall_at_{r}_change{end}"] for end in ("", "_low", "_high"))
        lines.append(
            f"- **{model}** on {dataset}: R@{r} by {metric} goes from {each} across the connector, a change of "
            f"{interval_text(*change, 3)}."
        )
    copies = [f"- {line}" for line in [*about_copies(table), *_about_other_classes(table)]]
    brackets = f"In brackets: {spec['confidence']:.0%} interval for the population of which the images are a sample."
    return "\n".join([*lines, *copies, "", brackets, ""])


def _about_other_classes(table: pd.DataFrame) -> list[str]:
    """A sentence for each dataset of which a class was left out with a copy."""
    counts = table.groupby("dataset", sort=False)["copies_of_other_class"].max()
    return [
        f"On {dataset}, {count} of the copies left out {'is' if count == 1 else 'are'} of another class than the image "
        "that is the same, whose class counts; classes contradict each other there."
        for dataset, count in counts.items()
        if count
    ]
