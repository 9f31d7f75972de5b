"""How the loss of patches goes with answer accuracy, where the answer lies and elsewhere (the paper's Figure 5)."""

import pandas as pd

from lossmap.study.captions import BOOTSTRAP
from lossmap.study.exhibit import of_all
from lossmap.study.relation_tables import answered, read_relations, tests_made, with_adjusted_p
from lossmap.study.scoring import SCORE_NAMES
from lossmap.study.specs import Spec
from lossmap.study.tables import interval, p_value

TITLE, TOPIC, PAPER = "Does it matter where the loss lies?", "behaviour", "Figure 5"
HEADLINE = 2
ABOUT = """
**Does it matter where the loss lies?** Rank correlation of answer accuracy with the loss in the patches where the
answer lies (relevant: the answer mask covers at least {s.threshold:.0%} of the patch) and in all others. Filled, and
the finding: partial, given the mean norm of those patches before the connector and the area of the mask, both of
which can make a patch hard to reconstruct and a question hard to answer. Hollow: the raw correlation, as in the
paper. Negative: where more is lost, answers are worse. Bars and brackets are bootstrap intervals over images. The
norm difference counts by its absolute value. Questions whose mask leaves a model no relevant patch are left out
there; n is what remains."""
COLUMNS = (
    *("dataset", "model", "decoder", "threshold", "right_from", "scored", "unscored", "region", "loss_kind"),
    *("questions", "without_patches", "mask_not_seen", "questions_used", "partial_rho", "raw_rho", "reason"),
    *("partial_rho_signed", "raw_rho_signed", "right", "wrong", "loss_right", "loss_wrong"),
    *("partial_difference", "raw_difference"),
)
PAGE = [
    *("dataset", "model", "region", "loss_kind", "partial_rho", "partial_rho_p_adjusted", "raw_rho"),
    *("questions_used", "reason"),
]
SHARED_NOTE = (
    "A patch is relevant if the answer mask covers at least {{s.threshold:.0%}} of its area, irrelevant otherwise; the "
    "loss is the mean over those patches, by the best decoder, the norm difference by its absolute value. "
    "Partial: {given}; this is the finding. Raw: without that, as in the paper. In brackets: {{s.confidence:.0%}} "
    "bootstrap interval over images. p: by permutation, two-sided; <=: no permutation came as far, so that p is an "
    "upper bound; adjusted: Benjamini-Hochberg, the family being all tests of that column. "
)
NOTE = SHARED_NOTE.format(
    given="given the mean norm of those patches before the connector, and the area of the mask"
) + (
    "Correlation: Spearman's rank correlation of loss and answer accuracy; negative: where more is lost, answers are "
    "worse. Questions used: those with such patches. The CSV file holds more: how many questions have no such patches, "
    "a mask that the model does not see, or no score; p-values of all; the correlation of the signed norm difference; "
    "the paper's convention, accuracy as min(matches / 3, 1)."
)


class Settings(Spec):
    SECTIONS = ("answers", "statistics")
    threshold: float
    right: float
    confidence: float


def needs(study):
    datasets = answered(study)
    return datasets and {"relations": of_all(study, "scores/{dataset}/{model}/answer_relations.parquet", datasets)}


def table(settings, relations):
    """A row per dataset, model, region (relevant or irrelevant patches) and kind of loss."""
    return relations_of(relations, within=False)


def relations_of(relations, *, within: bool) -> pd.DataFrame:
    """The relations of all datasets and models in each kind of patches, or in their difference within images."""
    from lossmap.measures.relations import WITHIN

    rows = read_relations(relations)
    return with_adjusted_p(rows[(rows["region"] == WITHIN) == within].reset_index(drop=True))


def findings(table, settings):
    """A line per model and dataset: squared error and accuracy, in relevant and in irrelevant patches."""
    shown, lines = table[table["loss_kind"] == "squared_error"], []
    for (dataset, model), group in shown.groupby(["dataset", "model"], sort=False):
        each = "; ".join(_of_region(row) for _, row in group.iterrows())
        lines.append(f"- **{model}** on {dataset}, squared error and accuracy given patch norm and mask area: {each}.")
    partial, raw = _away_from_zero(table, "partial_rho"), _away_from_zero(table, "raw_rho")
    return [
        *lines,
        "",
        f"Of all losses, models and datasets, intervals without 0: {partial} (raw: {raw}).",
        "",
        tests_made(table, "partial_rho", "partial rank correlations"),
        "",
        scored_by(table, settings),
    ]


def _of_region(row):
    if pd.isna(row["partial_rho"]):
        return f"undefined in {row['region']} patches ({row['reason']})"
    p = p_value(row["partial_rho_p_adjusted"], at_floor=row["partial_rho_p_at_floor"])
    about = f"n = {row['questions_used']}, adjusted p {p}; raw: {interval(row, 'raw_rho', 2)}"
    return f"{interval(row, 'partial_rho', 2)} in {row['region']} patches ({about})"


def _away_from_zero(table, name):
    """How many intervals of each region leave out 0: "3 of 9 in relevant patches, 2 of 9 in irrelevant patches"."""
    low, high = f"{name}_low", f"{name}_high"
    table = table.dropna(subset=[low, high])
    away = (table[low] > 0) | (table[high] < 0)
    groups = away.groupby(table["region"], sort=False)
    return ", ".join(f"{group.sum()} of {len(group)} in {region} patches" for region, group in groups)


def scored_by(table, settings):
    """A sentence on what answers were scored by, and what is in brackets."""
    names = " and ".join(table["scored"].map(SCORE_NAMES).unique())
    return f"Answers are scored by {names}. {BOOTSTRAP.format(settings.confidence)}"


def draw(table, settings, relations):
    """A panel per dataset and model, three in a row at most."""
    import matplotlib.pyplot as plt

    from lossmap.figures.relations import correlation_by_loss
    from lossmap.figures.style import legend_below

    groups = list(table.groupby(["dataset", "model"], sort=False))
    across = min(3, table["model"].nunique())
    down = -(-len(groups) // across)
    figure, axes = plt.subplots(
        down, across, figsize=(1.5 * across + 1, 2.4 * down + 0.3), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for panel, ((dataset, model), rows) in zip(axes.flat, groups, strict=False):
        correlation_by_loss(panel, rows)
        used = rows.groupby("region", sort=False)["questions_used"].first().items()
        panel.set_title(f"{model}\non {dataset}\nn: " + ",\n".join(f"{n} {region}" for region, n in used), fontsize=7)
    for panel in axes.flat[len(groups) :]:
        panel.remove()
    for panel in axes.flat[max(0, len(groups) - across) : len(groups)]:  # the lowest of each column
        panel.tick_params(labelbottom=True)
    scores = " or ".join(table["scored"].map(SCORE_NAMES).unique())
    figure.supxlabel(f"rank correlation of loss and {scores}", fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend_below(figure, dict(zip(labels, handles, strict=True)), 1, fontsize=7)
    return figure
