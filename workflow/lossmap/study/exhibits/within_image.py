"""Whether wrong answers come with more loss where the answer lies than elsewhere in the same image."""

import pandas as pd

from lossmap.study.exhibits import figure5
from lossmap.study.exhibits.figure5 import COLUMNS, SHARED_NOTE, needs, relations_of, scored_by
from lossmap.study.relation_tables import reasons, tests_made
from lossmap.study.tables import cells, interval, p_value

__all__ = ["COLUMNS", "needs"]
TITLE = "Within one image, is more lost where the answer lies when the answer is wrong?"
TOPIC, PAPER = "behaviour", None
ABOUT = """
**Within one image, is more lost where the answer lies when the answer is wrong?** Loss in relevant patches less loss
in irrelevant ones of the same image, so that what sets images apart cancels out; mean of right answers (accuracy of
{s.right} or more) less that of wrong ones, given the difference in norm of the two kinds of patches and the area of
the mask; raw: without that. Negative: wrong answers come with more loss where the answer lies."""
PAGE = [
    *("dataset", "model", "loss_kind", "partial_difference", "partial_difference_p_adjusted"),
    *("raw_difference", "right", "wrong", "reason"),
]
NOTE = SHARED_NOTE.format(
    given="given the difference in mean norm of the two kinds of patches before the connector, and the area of the mask"
) + (
    "Within each image, the loss in relevant patches less that in irrelevant ones: what sets images apart cancels out. "
    "Right: answers with an accuracy of at least {s.right}; wrong: all others. Difference: right less wrong; partial: "
    "by regression on the ranks of norm and area; negative: wrong answers come with more loss where the answer lies. "
    "The CSV file holds more: the means of right and of wrong answers, p-values of all, and rank correlations of the "
    "same difference of losses with accuracy."
)
REASONS = ("reason", "raw_difference_reason", "partial_difference_reason")


class Settings(figure5.Settings):
    pass


def table(settings, relations):
    """A row per dataset, model and kind of loss."""
    return relations_of(relations, within=True)


def page(table, settings):
    return pd.DataFrame(cells(table.assign(reason=reasons(table, *REASONS)), PAGE))


def findings(table, settings):
    """A line per model and dataset: how much more loss lies where the answer is, for right and for wrong answers."""
    lines = []
    for _, row in table[table["loss_kind"] == "squared_error"].iterrows():
        start = (
            f"- **{row['model']}** on {row['dataset']}, squared error in relevant less that in irrelevant patches, "
            f"{row['right']} right less {row['wrong']} wrong answers: "
        )
        if pd.isna(row["partial_difference"]):
            lines.append(f"{start}undefined ({row['partial_difference_reason']}).")
            continue
        p = p_value(row["partial_difference_p_adjusted"], at_floor=row["partial_difference_p_at_floor"])
        lines.append(
            f"{start}{interval(row, 'partial_difference', 3)}, given difference in norm and mask area (adjusted p {p}; "
            f"raw: {interval(row, 'raw_difference', 3)})."
        )
    return [*lines, "", tests_made(table, "partial_difference", "partial differences"), "", scored_by(table, settings)]
