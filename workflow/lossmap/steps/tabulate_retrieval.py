"""Retrieval summaries -> Tables 2 and 8, with the paper's values beside ours."""

from pathlib import Path

import pandas as pd

from lossmap.paper import beside
from lossmap.tables import write_csv, write_html

SIMILARITIES = {"l2": "Euclidean distance", "ip": "inner product of unit vectors"}
NOTE = (
    "Share of queries (in %) with an image of their own class among the r nearest ({similarity} on mean-pooled "
    "embeddings, the query left out), before (pre) and after (post) the connector. low, high: bootstrap interval over "
    "queries. overlap: share of neighbours kept. spearman: rank correlation of a query's recall with its overlap. "
    "reported: the paper's value."
)


def run(*, summaries: list[Path], csv: Path, html: Path, finding: Path, spec: dict) -> None:
    """Gather the retrieval summaries of all models and datasets for one similarity, in the paper's layout.

    spec: metric (l2: Table 2, ip: Table 8), recall, checkpoints (model -> checkpoint), confidence.
    """
    table = pd.concat([pd.read_parquet(path) for path in summaries], ignore_index=True)
    table = table[table["similarity"] == spec["metric"]].reset_index(drop=True)
    columns = {f"recall_at_{r}": f"recall_at_{r}_reported" for r in spec["recall"] if r in (1, 5)}
    # The paper's retrieval is on CUB-200-2011: a study's dataset of that name stands for it.
    ours = beside(table.assign(cub=table["dataset"] == "cub"), "table2_table8", columns, spec["checkpoints"])
    ours.loc[~ours.pop("cub"), list(columns.values())] = float("nan")
    write_csv(ours, csv)
    write_html(
        ours,
        html,
        f"Retrieval by class, {SIMILARITIES[spec['metric']]}",
        NOTE.format(similarity=SIMILARITIES[spec["metric"]]),
    )
    finding.write_text(_sentences(ours, spec))


def _sentences(table: pd.DataFrame, spec: dict) -> str:
    """One line per model and dataset, for the report: recall before and after, with interval."""
    r, lines = max(spec["recall"]), []
    for (dataset, model), group in table.groupby(["dataset", "model"], sort=False):
        sides = group.set_index("stage")
        each = " to ".join(
            f"{sides.loc[stage, f'recall_at_{r}']:.1f}% "
            f"[{sides.loc[stage, f'recall_at_{r}_low']:.1f}, {sides.loc[stage, f'recall_at_{r}_high']:.1f}]"
            for stage in ("pre", "post")
        )
        lines.append(f"- **{model}** on {dataset}: R@{r} goes from {each} across the connector.")
    return "\n".join([*lines, "", f"In brackets: {spec['confidence']:.0%} bootstrap interval over queries.", ""])
