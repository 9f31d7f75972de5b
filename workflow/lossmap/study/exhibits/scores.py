"""How often models answer questions and choose options right."""

import pandas as pd

from lossmap.study.captions import BOOTSTRAP
from lossmap.study.exhibit import of_all
from lossmap.study.scoring import SCORE_NAMES
from lossmap.study.specs import Spec
from lossmap.study.tables import cells, interval

TITLE, TOPIC, PAPER = "How often are models right?", "behaviour", None
ABOUT = """
**How often are models right?** Answers in the model's own words, by {s.scored_by}, and choices among given options,
of all questions and by question type. All are made from the stored embeddings, not from the images. Every question is
scored: an empty answer scores 0."""
COLUMNS = (
    *("dataset", "model", "task", "scored", "category", "n", "questions", "left_out", "empty"),
    *("accuracy", "chance"),
)
PAGE = [
    *("dataset", "model", "scored", "category", "accuracy", "chance", "accuracy_paper_convention"),
    *("questions", "empty"),
]
NOTE = (
    "Answers: of a model's own words, both sides normalised as by the VQA challenge. VQA accuracy: the mean, over "
    "leaving out each annotator in turn, of min(equal answers / 3, 1). Exact match: 1 if any annotator gave the "
    "answer; it is never less, so that the two don't compare. Choices: share of questions with the right option the "
    "likeliest; chance: what choosing at random would score. In brackets: {s.confidence:.0%} bootstrap interval over "
    "images, each with all its questions. Empty: answers without a word, which score 0. Paper's convention: min(equal "
    "answers / 3, 1) over all annotators, strings compared as in its code, articles and number words kept. Questions "
    "without a type count in all only. Left out, in the CSV file: questions that weren't scored."
)
HOW = {"vqa_accuracy": "the accuracy of the VQA challenge", "vqa_match": "exact match with any annotator's answer"}
COUNTS = ["n", "questions", "left_out", "empty"]
VALUES = ["accuracy", "accuracy_low", "accuracy_high", "chance", "accuracy_paper_convention"]


class Settings(Spec):
    SECTIONS = ("answers", "statistics")
    score: str
    confidence: float

    @property
    def scored_by(self) -> str:
        return HOW[self.score]


def needs(study):
    found = {
        task: of_all(study, f"scores/{{dataset}}/{{model}}/{task}_summary.parquet", study[task]["datasets"])
        for task in ("answers", "choices")
    }
    return {task: paths for task, paths in found.items() if paths}


def table(settings, answers=(), choices=()):
    """A row per dataset, model and task, and of choices by category, too."""
    summaries = [_of_task("answers", path) for path in answers] + [_of_task("choices", path) for path in choices]
    return pd.concat(summaries, ignore_index=True)


def _of_task(task, path):
    """One summary with the columns of all: those that its task lacks hold nothing."""
    summary = pd.read_parquet(path).rename(columns={"score": "scored", "n": "questions", "images": "n"})
    if task == "answers":
        summary["category"] = "all"
    columns = ["dataset", "model", "task", "scored", "category", *COUNTS, *VALUES]
    summary = summary.assign(task=task).reindex(columns=columns)
    return summary.astype(dict.fromkeys(COUNTS, "Int64") | dict.fromkeys(VALUES, "float64"))


def page(table, settings):
    return pd.DataFrame(cells(table.assign(scored=table["scored"].map(SCORE_NAMES)), PAGE))


def findings(table, settings):
    """A line per model, dataset and task."""
    lines = []
    for (dataset, model, task), group in table.groupby(["dataset", "model", "task"], sort=False):
        row, start = group[group["category"] == "all"].iloc[0], f"- **{model}** on {dataset}: "
        value, questions = interval(row, "accuracy", 2), row["questions"]
        if task == "answers":
            line = f"{start}{SCORE_NAMES[row['scored']]} {value} over {questions} questions"
            lines.append(f"{line}, {row['empty']} of them without an answer." if row["empty"] else f"{line}.")
            continue
        better = row["accuracy_low"] > row["chance"]
        line = f"{start}chooses the right option for {value} of {questions} questions"
        line += f" (chance {row['chance']:.2f}{'' if better else ': not clearly better'})"
        types = group[group["category"] != "all"].sort_values("accuracy", kind="stable")
        if len(types) > 1:
            (worst, least), (best, most) = types[["category", "accuracy"]].iloc[[0, -1]].to_numpy()
            line += f"; best at {best} ({most:.2f}), worst at {worst} ({least:.2f})"
        lines.append(f"{line}.")
    return [*lines, "", BOOTSTRAP.format(settings.confidence)]
