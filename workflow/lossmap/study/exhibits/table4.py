"""How an image's loss goes with the CIDEr of its caption (the paper's Table 4)."""

import pandas as pd

from lossmap.study.captions import BOOTSTRAP
from lossmap.study.exhibits import table3_cider
from lossmap.study.exhibits.table3_cider import OF_ALL_IMAGES, beside_whole_splits, needs
from lossmap.study.relation_tables import read_relations, reasons, tests_made, with_adjusted_p
from lossmap.study.tables import cells, interval, p_value

__all__ = ["needs"]
TITLE, TOPIC, PAPER = "Are images that lost more described worse?", "behaviour", "Table 4"
HEADLINE = 1
ABOUT = """
**Are images that lost more described worse?** Loss of an image (mean over its patches, by the best decoder)
against the CIDEr of its caption: rank correlation, and CIDEr of the quarter of the images with the lowest loss less
that of the quarter with the highest. Partial, and the finding: given the mean norm of the image's patches and the
number of words in its references, since images with more to see take more words, lose more and score less, whatever
the connector does. Raw: without that, as in the paper. Adjusted p-values are Benjamini and Hochberg's over all models
and datasets, a family for each column."""
COLUMNS = (
    *("dataset", "model", "decoder", "unscored", "loss_kind", "n", "partial_rho", "raw_rho", "reason"),
    *("partial_rho_signed", "raw_rho_signed", "quarter", "partial_gain", "raw_gain"),
    *("cider_high_loss", "cider_low_loss"),
)
PAGE = [
    *("dataset", "model", "loss_kind", "partial_rho", "partial_rho_p_adjusted", "partial_gain"),
    *("raw_rho", "raw_rho_reported", "n", "reason"),
]
NOTE = (
    "Partial: given the mean norm of an image's patches before the connector and the mean number of words of its "
    "references, since images with more to see take more words, lose more and score less; this is the finding. Raw: "
    "without that, as in the paper. Correlation: Spearman's rank correlation of loss and CIDEr; negative: images that "
    "lost more are described worse. Gain: CIDEr of the quarter of the images with the lowest loss less that of the "
    "quarter with the highest; partial: of the quarters by what the ranks of norm and words leave of the loss. In "
    "brackets: {s.confidence:.0%} bootstrap interval over images. p: by permutation, two-sided; <=: no permutation "
    "came as far, so that p is an upper bound; adjusted: Benjamini-Hochberg, the family being all tests of that "
    "column. Loss: mean over patches, by the best decoder; the norm difference by its absolute value. Reported: "
    "the paper's value, where the study has its model and dataset. The CSV file holds more: p-values of all, CIDEr of "
    "the quarters, images with a loss but without a scored caption, and the paper's convention, CIDEr on raw strings."
)
REASONS = ("reason", "raw_gain_reason", "partial_gain_reason")


class Settings(table3_cider.Settings):
    pass


def table(settings, relations):
    """A row per dataset, model and kind of loss."""
    rows = with_adjusted_p(read_relations(relations)).drop(columns=["empty", *OF_ALL_IMAGES])
    values = ["cider_high_loss", "cider_low_loss", "spearman"]
    rows = beside_whole_splits(rows, "table4", values, settings.checkpoints)
    # The paper's loss is the squared error.
    rows.loc[rows["loss_kind"] != "squared_error", [f"{name}_reported" for name in values]] = float("nan")
    return rows.rename(columns={"spearman_reported": "raw_rho_reported"})


def page(table, settings):
    return pd.DataFrame(cells(table.assign(reason=reasons(table, *REASONS)), PAGE))


def findings(table, settings):
    """A line per model and dataset: how squared error goes with CIDEr."""
    lines = []
    for _, row in table[table["loss_kind"] == "squared_error"].iterrows():
        start = f"- **{row['model']}** on {row['dataset']} ({row['n']} images): "
        if pd.isna(row["partial_rho"]):
            lines.append(f"{start}no partial rank correlation of squared error and CIDEr: {row['reason']}.")
            continue
        p = p_value(row["partial_rho_p_adjusted"], at_floor=row["partial_rho_p_at_floor"])
        lines.append(
            f"{start}given patch norm and the references' words, squared error and CIDEr correlate by "
            f"{interval(row, 'partial_rho', 2)} (adjusted p {p}; raw: {interval(row, 'raw_rho', 2)}). CIDEr of the "
            "quarter with the lowest loss less that of the quarter with the highest, given the same: "
            f"{interval(row, 'partial_gain', 1)} (raw: {interval(row, 'raw_gain', 1)})."
        )
    return [
        *lines,
        "",
        tests_made(table, "partial_rho", "partial rank correlations"),
        "",
        BOOTSTRAP.format(settings.confidence),
    ]
