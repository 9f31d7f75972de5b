"""Every reader: what it leaves open, how often it is right, whether it has converged; and the control task."""

from lossmap.readers.specs import CONTROLS
from lossmap.study.captions import BOOTSTRAP
from lossmap.study.columns import Column, define
from lossmap.study.exhibit import of_all
from lossmap.study.specs import Spec
from lossmap.study.tables import interval, read_all

TITLE, TOPIC, PAPER = "What can readers read before and after the connector?", "behaviour", None
SIDES = {
    "question": "question alone",
    "pre": "before the connector",
    "post": "after the connector",
    "pooling": "pooled by 2 x 2 patches",
    "random_tokens": "random patches",
    "control": "control task",
    "control_prior": "control task, shares of answers",
}
ABOUT = """
**What can be read before and after the connector?** Bits of the right answer that each reader leaves open, and how
often it answers right. The control task is the same with answers exchanged at random among questions of a type: a
reader must fail it, that is, leave as much open as the shares of answers in training do."""
COLUMNS = (
    *("dataset", "n", "model", "reader_input", "network", "seed", "questions", "covered", "bits", "reader_accuracy"),
    *("held_out_bits", "training_bits", "converged"),
)
PAGE = [
    "dataset",
    "model",
    "reader_input",
    "network",
    "bits",
    "reader_accuracy",
    "held_out_bits",
    "training_bits",
    "converged",
    "seed",
]
NOTE = (
    "Bits: mean of -log2 of the probability of the right answer (open questions: the one that most annotators gave, "
    "where it is among those that readers know: covered). Right: by the score that the model's answers are scored by."
    " Held-out: of the training questions, by which readers are chosen; training: of those that train. Not converged:"
    " training ended before its error came to rest. In brackets: {s.confidence:.0%} bootstrap interval over images."
)
define("reader_input", Column("reader's input", "name", "", "what a reader is given beside the question", words=SIDES))
define("network", Column("network", "name", "", "of the ladder of readers"))
define("seed", Column("seed", "number", "", "of the network's training"))
define("bits", Column("left open", "bits", "less is read", "of the right answer, mean over questions", digits=2))
define(
    "held_out_bits", Column("left open, held-out", "bits", "less is read", "of held-out training questions", digits=2)
)
define("training_bits", Column("training", "bits", "less is read", "left open of training questions", digits=2))


class Settings(Spec):
    SECTIONS = ("statistics",)
    confidence: float


def needs(study):
    datasets = study["readers"]["datasets"] if "readers" in study else []
    return datasets and {"summaries": of_all(study, "scores/{dataset}/{model}/readers.parquet", datasets)}


def table(settings, summaries):
    return read_all(summaries).rename(columns={"side": "reader_input"})


def findings(table, settings):
    """Bits left open by the best reader of each kind, and by how much the control task is failed."""
    lines = []
    for (dataset, model), group in table.groupby(["dataset", "model"], sort=False):
        best = {
            side: rows.sort_values("held_out_bits", kind="stable").iloc[0]
            for side, rows in group.groupby("reader_input")
        }
        said = ", ".join(
            f"{interval(best[side], 'bits', 2)} ({SIDES[side]})"
            for side in ("question", "pre", "post", *CONTROLS)
            if side in best
        )
        gain = best["control_prior"]["bits"] - best["control"]["bits"]
        beaten = [
            SIDES[side] for side in CONTROLS if side in best and best[side]["bits_high"] < best["post"]["bits_low"]
        ]
        lost = f" The connector loses to tokens that are {' and '.join(beaten)}." if beaten else ""
        lines.append(
            f"- **{model}** on {dataset}: bits left open by the best readers: {said}. On the control task its reader "
            f"is {abs(gain):.2f} bits {'better' if gain > 0 else 'worse'} than the shares of answers.{lost}"
        )
    return [*lines, "", BOOTSTRAP.format(settings.confidence)]
