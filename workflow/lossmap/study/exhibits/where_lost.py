"""Where a model's wrong answers are lost: before the connector, at it, or in the language model."""

import pandas as pd

from lossmap.study.captions import BOOTSTRAP
from lossmap.study.columns import SHARE, Column, define
from lossmap.study.exhibit import of_all
from lossmap.study.specs import Spec
from lossmap.study.tables import cells, interval, interval_text, read_all

TITLE, TOPIC, PAPER = "Where is an answer lost: encoder, connector or language model?", "behaviour", None
HEADLINE = 1
ABOUT = """
**Where is an answer lost?** Readers, small networks that answer the same questions, are trained on what enters the
connector, on what leaves it, and on the question alone. Of a model's wrong answers, those that no reader can read
before the connector are lost in the encoder; those that can be read before it but not after are lost at the connector;
those that can be read from the very tokens that the language model receives are not used by it. What a reader guesses
from the question is taken off. Bars: shares of all questions; crossed: right answers that readers don't read."""
SHARES = ("lost_before", "lost_at_connector", "not_used")
COLUMNS = (
    *("dataset", "n", "model", "grouping", "category", "questions", "wrong", "not_attributed"),
    *(*SHARES, "unread"),
    *(f"{name}_{end}" for name in (*SHARES, "unread") for end in ("weaker", "stronger")),
    *(f"all_{name}" for name in (*SHARES, "unread")),
    *("model_accuracy", "reader_accuracy", "reader_advantage", "too_weak", "more_after", "more_before"),
    *("covered", "bits_question", "information_before", "information_after", "information_lost"),
)
PAGE = [
    *(
        "dataset",
        "model",
        "category",
        "wrong",
        "not_attributed",
        *SHARES,
        "unread",
        "model_accuracy",
        "reader_accuracy",
    ),
    *("information_before", "information_after", "information_lost", "bits_question", "covered", "questions"),
]
NOTE = (
    "Of the model's wrong answers, 1 - k before the connector is lost before it, k before less k after at it, and k "
    "after is not used: k = (R - g) / (1 - g) is the share of questions that readers know, R those that they answer "
    "right, g those that a reader of the question alone does. Few answers, or wrong ones that are guessed less well "
    "than others, give shares below 0 or above 1. Unread: the same of the model's right answers, which readers don't "
    "read after the connector. At least, at most: stronger readers may read more, for the last network of the ladder "
    "gained more than {s.settled_within:g} bits on held-out questions, or the best one leaves more than that less "
    "open on its training questions, so that more of them may help; of what is lost at the connector that gives a "
    "bound where it is so on one side alone; the CSV file holds what the ladder less its last network says (weaker), "
    "and what as great a step again would (stronger). Readers too weak: the model answers more questions of this type"
    " than readers do after the connector, or these read nothing of them even before it; its errors are not "
    "attributed, here and in all, nor are those with an answer that readers don't know. A share at the connector "
    "without interval: no reader of what enters it was better than those of what leaves it. Readers are chosen by "
    "question type, by their bits on held-out training questions; one of what leaves the connector is one of what "
    "enters it, too. Usable information (Xu et al. 2020): bits that the question alone leaves open less those left "
    "with the image, of questions whose answer is among the most frequent of training (covered). In brackets: "
    "{s.confidence:.0%} bootstrap interval over images; it doesn't cover another training run."
)
define("grouping", Column("grouping", "name", "", "all questions, those of a question type, or of an answer type"))
define(
    "not_attributed",
    Column("not attributed", "count", "", "wrong answers of types, or with answers, that readers can't tell of"),
)
define("lost_before", Column("lost before the connector", "share of the wrong", "", "not readable before it", digits=2))
define(
    "lost_at_connector",
    Column("lost at the connector", "share of the wrong", "more is lost", "readable before, not after", digits=2),
)
define(
    "not_used", Column("not used", "share of the wrong", "", "readable after the connector, answered wrong", digits=2)
)
define("unread", Column("unread", "share of the right", "", "right answers that readers don't read", digits=2))
for _name in (*SHARES, "unread"):
    define(f"{_name}_weaker", Column(f"{_name}, weaker", SHARE, "", "by the ladder of readers less its last network"))
    define(f"{_name}_stronger", Column(f"{_name}, stronger", SHARE, "", "were the ladder's last step taken once more"))
    define(f"all_{_name}", Column(f"{_name}, of all", "share of all questions", "", "the same share of all questions"))
define("model_accuracy", Column("model, right", SHARE, "more is right", "questions that the model answers right"))
define("reader_accuracy", Column("readers, right", SHARE, "more is read", "questions that readers answer right"))
define("reader_advantage", Column("readers less model", SHARE, "", "of accuracy, after the connector"))
define("too_weak", Column("readers too weak", "true or false", "", "readers can't tell where answers are lost"))
define("more_after", Column("more after", "true or false", "", "a stronger reader may read more after the connector"))
define("more_before", Column("more before", "true or false", "", "a stronger reader may read more before it"))
define("covered", Column("covered", SHARE, "", "questions whose answer is among those that readers know", digits=2))
define("bits_question", Column("question alone", "bits", "", "left open by the reader of the question alone", digits=2))
for _name, _title in (("before", "before"), ("after", "after"), ("lost", "lost at the connector")):
    define(f"information_{_name}", Column(f"usable, {_title}", "bits", "", "usable information of the image", digits=2))


class Settings(Spec):
    SECTIONS = ("readers", "statistics")
    settled_within: float
    confidence: float


def needs(study):
    datasets = study["readers"]["datasets"] if "readers" in study else []
    return datasets and {"summaries": of_all(study, "scores/{dataset}/{model}/where_lost.parquet", datasets)}


def table(settings, summaries):
    return read_all(summaries)


def page(table, settings):
    """Shares as they may be read: bounds where stronger readers may read more, none where readers are too weak."""
    shown = pd.DataFrame(cells(table, PAGE))
    titles = {"lost_before": "lost before the connector", "lost_at_connector": "lost at the connector"}
    titles |= {"not_used": "not used", "unread": "unread"}
    for name, title in titles.items():
        shown[title] = [_share(row, name) for row in table.to_dict("records")]
    return shown


def _share(row: dict, name: str) -> str:
    if row["too_weak"]:
        return "readers too weak"
    return "–" if pd.isna(row[name]) else bound(row, name) + interval(row, name, 2)


def bound(row: dict, name: str) -> str:
    """What a share is where stronger readers may read more. Of what is lost at the connector nothing is known if they
    may before and after it."""
    before, after = row["more_before"], row["more_after"]
    if name == "not_used" and after:
        return "at least "
    if (name == "lost_before" and before) or (name == "unread" and after):
        return "at most "
    if name == "lost_at_connector" and before != after:
        return "at most " if after else "at least "
    return ""


def findings(table, settings):
    """Where a model's wrong answers are lost, and of which type of question most is lost at the connector."""
    lines = []
    for (dataset, model), group in table.groupby(["dataset", "model"], sort=False):
        row, types = group.iloc[0].to_dict(), group[group["grouping"] == "question type"]
        start = f"- **{model}** on {dataset} answers {row['wrong']} of {row['questions']} questions wrong. "
        known = types[~types["too_weak"] & (types["wrong"] > 0)]
        weak = types.loc[types["too_weak"], "category"].tolist()
        if pd.isna(row["not_used"]):  # none is wrong, or readers can't tell of any
            why = "Its readers are too weak to say where they are lost." if row["wrong"] else ""
            lines.append((start + why).strip())
            continue
        said = {name: bound(row, name) + _percent(row, name) for name in SHARES}
        rest = row["wrong"] - row["not_attributed"]
        these = f"the {rest} others" if row["not_attributed"] else "these"
        line = f"{start}Readers are too weak for questions of {', '.join(weak)}. " if weak else start
        line += (
            f"Of {these}, {said['not_used']} can be read from what the language model receives, which doesn't use it;"
            f" {said['lost_at_connector']} are lost at the connector, {said['lost_before']} before it."
        )
        known = known.dropna(subset="information_lost").sort_values("information_lost", kind="stable")
        most = known.iloc[-1] if len(known) else None
        if most is not None and most["information_lost_low"] > 0:
            line += f" Most is lost at the connector of {most['category']}: {_bits(most)}."
        lines.append(line)
    return [*lines, "", BOOTSTRAP.format(settings.confidence)]


def _percent(row: dict, name: str) -> str:
    value, low, high = (100 * row[name + end] for end in ("", "_low", "_high"))
    if pd.isna(value):
        return "–"
    return f"{value:z.0f}%" + ("" if pd.isna(low) else f" [{low:z.0f}, {high:z.0f}]")


def _bits(row) -> str:
    value, low, high = (row["information_lost" + end] for end in ("", "_low", "_high"))
    return f"{interval_text(value, low, high, 2)} bits of {row['information_before']:.2f}"


def draw(table, settings, summaries):
    from lossmap.figures.where_lost import where_lost_by_type

    return where_lost_by_type(table)
