"""Summaries of answers and choices -> one table of how often models are right."""

from pathlib import Path

import pandas as pd

from lossmap.study.scoring import SCORE_NAMES
from lossmap.study.tables import with_interval, write_csv, write_html

COUNTS = ["images", "n", "left_out", "empty"]
VALUES = ["accuracy", "accuracy_low", "accuracy_high", "chance", "accuracy_paper_convention"]
NOTE = (
    "Answers: of a model's own words, both sides normalised as by the VQA challenge. VQA accuracy: the mean, over "
    "leaving out each annotator in turn, of min(equal answers / 3, 1). Exact match: 1 if any annotator gave the "
    "answer; it is never less, so that the two don't compare. Choices: share of questions with the right option the "
    "likeliest; chance: what choosing at random would score. In brackets: bootstrap interval over images, each with "
    "all its questions. Left out: questions that weren't scored. Empty: answers without a word, which score 0. Paper's "
    "convention: min(equal answers / 3, 1) over all annotators, strings compared as in its code, articles and number "
    "words kept. Questions without a type count in all only."
)


def run(*, summaries: list[Path], csv: Path, html: Path, finding: Path, spec: dict) -> None:
    """Gather the scores of answers and of choices of all models and datasets: of all questions and by category.

    summaries: of steps score_answers and score_choices. spec: confidence.
    """
    table = pd.concat([_of_task(path) for path in summaries], ignore_index=True)
    write_csv(table, csv)
    write_html(_readable(table), html, "Accuracy of answers and choices", NOTE)
    finding.write_text(_sentences(table, spec["confidence"]))


def _of_task(path: Path) -> pd.DataFrame:
    """One summary with the columns of all: those that its task lacks hold nothing."""
    summary = pd.read_parquet(path)
    task = "choices" if "chance" in summary else "answers"
    if task == "answers":
        summary["category"] = "all"
    summary = summary.assign(task=task).reindex(
        columns=["dataset", "model", "task", "score", "category", *COUNTS, *VALUES]
    )
    return summary.astype(dict.fromkeys(COUNTS, "Int64") | dict.fromkeys(VALUES, "float64"))


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table with intervals beside their values, without columns that hold nothing."""
    columns = {
        "dataset": table["dataset"],
        "model": table["model"],
        "task": table["task"],
        "score": table["score"].map(SCORE_NAMES),
        "category": table["category"],
        "images": table["images"],
        "questions": table["n"],
        "left out": table["left_out"],
        "empty": table["empty"],
        "accuracy": with_interval(table, "accuracy", "accuracy_low", "accuracy_high", 3),
        "chance": table["chance"],
        "paper's convention": table["accuracy_paper_convention"],
    }
    return pd.DataFrame(columns).dropna(axis="columns", how="all")


def _sentences(table: pd.DataFrame, confidence: float) -> str:
    """One line per model, dataset and task, for the report."""
    lines = []
    for (dataset, model, task), group in table.groupby(["dataset", "model", "task"], sort=False):
        row = group[group["category"] == "all"].iloc[0]
        interval = f"{row['accuracy']:.2f} [{row['accuracy_low']:.2f}, {row['accuracy_high']:.2f}]"
        if task == "answers":
            line = f"- **{model}** on {dataset}: {SCORE_NAMES[row['score']]} {interval} over {row['n']} questions"
            lines.append(f"{line}, {row['empty']} of them without an answer." if row["empty"] else f"{line}.")
            continue
        better = row["accuracy_low"] > row["chance"]
        line = f"- **{model}** on {dataset}: chooses the right option for {interval} of {row['n']} questions"
        line += f" (chance {row['chance']:.2f}{'' if better else ': not clearly better'})"
        types = group[group["category"] != "all"].sort_values("accuracy", kind="stable")
        if len(types) > 1:
            (worst, least), (best, most) = types[["category", "accuracy"]].iloc[[0, -1]].to_numpy()
            line += f"; best at {best} ({most:.2f}), worst at {worst} ({least:.2f})"
        lines.append(f"{line}.")
    return "\n".join([*lines, "", f"In brackets: {confidence:.0%} bootstrap interval over images.", ""])
