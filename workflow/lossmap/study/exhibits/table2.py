"""Retrieval by class before and after the connector, by Euclidean distance (the paper's Table 2)."""

from typing import Literal

import pandas as pd

from lossmap.study.captions import POPULATION
from lossmap.study.columns import METRICS, STAGES
from lossmap.study.exhibit import of_all
from lossmap.study.paper import beside
from lossmap.study.specs import Spec
from lossmap.study.tables import about_copies, interval, interval_text, read_all

CUB_TEST = 5794  # images of the test split of CUB-200-2011, on which the paper reports
TITLE, TOPIC, PAPER = "Does an image find its own class, by Euclidean distance?", "neighbours", "Table 2"
ABOUT = """
**Does an image find its own class?** Each image is a query against all others, by {s.by} of mean-pooled patch
embeddings before and after the connector. R@r: share of queries, 0 to 1, with an image of their class among the r
nearest. How a query's recall goes with its overlap is a finding only as a partial rank correlation, given the size of
its class and how often it is among the nearest of others."""
COLUMNS = (
    *("dataset", "n", "images", "copies", "copies_of_other_class", "classes", "model", "metric", "stage"),
    *("recall_at_r", "recall_at_r_change", "overlap_k", "overlap", "partial_r_overlap", "spearman_r_overlap"),
)
NOTE = (
    "R@r: share of queries with an image of their own class among the r nearest, by {s.by} of mean-pooled "
    "embeddings, the query left out; before and after the connector. Overlap (k-NN overlap ratio, KNOR): "
    "share of the {s.overlap_k} nearest neighbours that are preserved, by the same metric. rho: rank correlation of a "
    "query's R@{s.largest} with its overlap; partial, and the finding: given the size of its class, and how often it "
    "is itself among the {s.overlap_k} nearest of others before the connector; raw: without that, as in the paper. In "
    "brackets: interval for the population of which the images are a sample (each counts as a query and as a neighbour "
    "of others). Copies: images with the pixels or the embedding of another. Where no query changed, the interval of "
    "the change is the exact upper bound on the share of queries that may change (Clopper-Pearson, queries as if "
    "independent). Equally near neighbours share their places: expected value over random orders. Reported: the "
    "paper's value, where the study has its model and dataset; its overlap counts the query among its own neighbours, "
    "as overlap_paper_convention in the CSV file does."
)


class Settings(Spec):
    SECTIONS = ("retrieval", "statistics")
    metric: Literal["euclidean", "cosine"]
    checkpoints: dict[str, str]
    recall: list[int]
    overlap_k: int
    confidence: float

    @property
    def by(self) -> str:
        return METRICS[self.metric]

    @property
    def largest(self) -> int:
        return max(self.recall)

    @classmethod
    def of(cls, study, metric="euclidean"):
        return super().of(study, metric=metric)


def needs(study, metric="euclidean"):
    datasets = study["retrieval"]["datasets"]
    if not datasets or metric not in study["retrieval"]["metrics"]:
        return {}
    return {"summaries": of_all(study, "neighbours/{dataset}/{model}/retrieval_summary.parquet", datasets)}


def table(settings, summaries):
    rows = read_all(summaries)
    rows = rows[rows["metric"] == settings.metric].reset_index(drop=True)
    values = [f"recall_at_{r}" for r in settings.recall if r in (1, 5)]
    if settings.overlap_k == 100 and settings.largest == 5:
        values += ["overlap_k100", "spearman_r5_overlap"]
    rows = beside(rows, "table2_table8", ["metric", "stage"], values, settings.checkpoints)
    theirs = (rows["dataset"] == "cub") & (rows["images"] == CUB_TEST)
    rows.loc[~theirs, [f"{name}_reported" for name in values]] = float("nan")
    return rows


def page(table, settings):
    """The paper's layout, a row per dataset and model: recall before and after, overlap, how the two go together."""
    rows, k, largest = [], settings.overlap_k, settings.largest
    for (dataset, model), group in table.groupby(["dataset", "model"], sort=False):
        row = {"dataset": dataset, "model": model}
        shown = [(f"R@{largest}, {name}", stage, f"recall_at_{largest}", 3) for stage, name in STAGES.items()]
        shown.append((f"R@{largest}, change", "pre", f"recall_at_{largest}_change", 3))
        shown.append((f"overlap, k = {k}", "pre", f"overlap_k{k}", 3))
        shown.append(("partial rho, before", "pre", f"partial_r{largest}_overlap", 2))
        for title, stage, name, digits in shown:
            side = group[group["stage"] == stage].iloc[0]
            row[title] = interval(side, name, digits)
            if pd.notna(side.get(f"{name}_reported")):
                row[f"{title}, reported"] = f"{side[f'{name}_reported']:.{4 if name.startswith('recall') else 2}f}"
        rows.append(row)
    return pd.DataFrame(rows)


def findings(table, settings):
    """Recall before and after, with interval, a line per model and dataset."""
    name, lines = f"recall_at_{settings.largest}", []
    for (dataset, model), group in table.groupby(["dataset", "model"], sort=False):
        sides = group.set_index("stage")
        each = " to ".join(interval(sides.loc[stage], name, 3) for stage in STAGES)
        change = (sides.loc["pre", f"{name}_change{end}"] for end in ("", "_low", "_high"))
        lines.append(
            f"- **{model}** on {dataset}: R@{settings.largest} by {settings.by} goes from {each} across the connector, "
            f"a change of {interval_text(*change, 3)}."
        )
    return [*lines, *about_copies(table), *_other_classes(table), "", POPULATION.format(settings.confidence)]


def _other_classes(table):
    """A line for each dataset of which a class was left out with a copy."""
    counts = table.groupby("dataset", sort=False)["copies_of_other_class"].max()
    return [
        f"- On {dataset}, {count} of the copies left out {'is' if count == 1 else 'are'} of another class than the "
        "image that is the same, whose class counts; classes contradict each other there."
        for dataset, count in counts.items()
        if count
    ]
