"""Relations of patch loss and answer accuracy -> the table behind Figure 5, or that of the within-image comparison."""

from pathlib import Path

import pandas as pd

from lossmap.measures.relations import WITHIN
from lossmap.study.relation_tables import correlations, differences, reasons, with_adjusted_p
from lossmap.study.scoring import SCORE_NAMES
from lossmap.study.tables import interval_text, p_value, read_all, with_interval, write_csv, write_html

REASONS = ("reason", "difference_reason", "partial_difference_reason")
COUNTS = {
    "questions": "answers",
    "n": "used",
    "without_patches": "without such patches",
    "mask_not_seen": "mask not seen",
}
SHARED_NOTE = (
    "A patch is relevant if the answer mask covers at least the share of its area that the configuration sets, "
    "irrelevant otherwise; the loss is the mean over those patches, by the best reconstructor, the norm difference by "
    "its absolute value. Answers: all that were scored; used: those with such patches; mask not seen: of the answers, "
    "those whose mask the model's crop leaves out, or that is empty; unscored: questions with a mask but without a "
    "score. Partial: {given}; this is the finding. Raw: without that, as in the paper. In brackets: bootstrap interval "
    "over images. p: by permutation, two-sided; <=: no permutation came as far, so that p is an upper bound; adjusted: "
    "Benjamini-Hochberg, the family being all tests of that column. "
)
CORRELATION_NOTE = SHARED_NOTE.format(
    given="given the mean norm of those patches before the connector, and the area of the mask"
) + (
    "rho: Spearman's rank correlation of loss and answer accuracy; negative: where more is lost, answers are worse. "
    "Signed: of the signed norm difference. Paper's convention: accuracy as min(matches / 3, 1)."
)
WITHIN_NOTE = SHARED_NOTE.format(
    given="given the difference in mean norm of the two kinds of patches before the connector, and the area of the mask"
) + (
    "Within each image, the loss in relevant patches less that in irrelevant ones: what sets images apart cancels out. "
    "Right: answers with at least the accuracy that the configuration sets; wrong: all others. Difference: right less "
    "wrong; partial: by regression on the ranks of norm and area; negative: wrong answers come with more loss where the"
    " answer lies. rho: of the same difference of losses with accuracy."
)


def run(*, relations: list[Path], csv: Path, html: Path, finding: Path, spec: dict) -> None:
    """Gather the relations of all models and datasets into one of two tables.

    spec: table ("figure5": relevant and irrelevant patches, or "within_image": their difference), confidence.
    """
    rows = read_all(relations)
    within = spec["table"] == "within_image"
    table = rows[(rows["region"] == WITHIN) == within].reset_index(drop=True)
    table = with_adjusted_p(table)
    write_csv(table, csv)
    if within:
        title, note, lines = "Loss where the answer lies, right against wrong answers", WITHIN_NOTE, _contrasts(table)
    else:
        title, note, lines = "Patch loss and answer accuracy", CORRELATION_NOTE, _correlations(table)
    write_html(_readable(table, within), html, title, note, digits=4)
    scored = f"Answers are scored by {' and '.join(table['score'].map(SCORE_NAMES).unique())}."
    finding.write_text(
        "\n".join([*lines, "", f"{scored} In brackets: {spec['confidence']:.0%} bootstrap interval.", ""])
    )


def _readable(table: pd.DataFrame, within: bool) -> pd.DataFrame:
    """The table with intervals beside their values, without columns that hold nothing."""
    columns = {
        "dataset": table["dataset"],
        "model": table["model"],
        "score": table["score"].map(SCORE_NAMES),
        "patches": table["region"],
        "kind of loss": table["loss"].str.replace("_", " "),
        **{title: table[name] for name, title in COUNTS.items()},
        "unscored": table["unscored"],
    }
    if within:
        for side in ("right", "wrong"):
            columns[f"{side} answers"] = table[side]
            columns[f"loss, {side}"] = with_interval(table, f"loss_{side}", f"loss_{side}_low", f"loss_{side}_high", 3)
        columns |= differences(table, "difference", 3)
    columns |= correlations(table) | {
        "partial rho, signed": table["rho_signed_partial"],
        "raw rho, signed": table["rho_signed"],
        "raw rho, paper's convention": table["rho_paper_convention"],
        "undefined, because": reasons(table, *REASONS[: 3 if within else 1]),
    }
    return pd.DataFrame(columns).dropna(axis="columns", how="all")


def _correlations(table: pd.DataFrame) -> list[str]:
    """One line per model and dataset: squared error and accuracy, in relevant and in irrelevant patches."""
    lines = []
    for (dataset, model), group in table[table["loss"] == "squared_error"].groupby(["dataset", "model"], sort=False):
        each = []
        for row in group.itertuples():
            if pd.isna(row.rho_partial):
                each.append(f"undefined in {row.region} patches ({row.reason})")
                continue
            partial = interval_text(row.rho_partial, row.partial_low, row.partial_high, 2)
            p = p_value(row.partial_p_adjusted, at_floor=row.partial_p_at_floor)
            raw = interval_text(row.rho, row.low, row.high, 2)
            each.append(f"{partial} in {row.region} patches (n = {row.n}, adjusted p {p}; raw: {raw})")
        lines.append(
            f"- **{model}** on {dataset}, squared error and accuracy given patch norm and mask area: {'; '.join(each)}."
        )
    partial = _away_from_zero(table, "partial_low", "partial_high")
    raw = _away_from_zero(table, "low", "high")
    tests = int(table["partial_p_adjusted"].notna().sum())
    return [
        *lines,
        "",
        f"Of all losses, models and datasets, intervals without 0: {partial} (raw: {raw}).",
        "",
        f"Family of tests: {tests} partial rank correlations; undefined: {len(table) - tests}.",
    ]


def _away_from_zero(table: pd.DataFrame, low: str, high: str) -> str:
    """How many intervals of each region leave out 0: "3 of 9 in relevant patches, 2 of 9 in irrelevant patches"."""
    table = table.dropna(subset=[low, high])
    away = (table[low] > 0) | (table[high] < 0)
    groups = away.groupby(table["region"], sort=False)
    return ", ".join(f"{group.sum()} of {len(group)} in {region} patches" for region, group in groups)


def _contrasts(table: pd.DataFrame) -> list[str]:
    """One line per model and dataset: how much more loss lies where the answer is, for right and for wrong answers."""
    lines = []
    for row in table[table["loss"] == "squared_error"].itertuples():
        start = (
            f"- **{row.model}** on {row.dataset}, squared error in relevant less that in irrelevant patches, "
            f"{row.right} right less {row.wrong} wrong answers: "
        )
        if pd.isna(row.partial_difference):
            lines.append(f"{start}undefined ({row.partial_difference_reason}).")
            continue
        low, high = row.partial_difference_low, row.partial_difference_high
        partial = interval_text(row.partial_difference, low, high, 3)
        flag = row.partial_difference_p_at_floor
        p = p_value(row.partial_difference_p_adjusted, at_floor=flag)
        raw = interval_text(row.difference, row.difference_low, row.difference_high, 3)
        lines.append(f"{start}{partial}, given difference in norm and mask area (adjusted p {p}; raw: {raw}).")
    tests = int(table["partial_difference_p_adjusted"].notna().sum())
    return [*lines, "", f"Family of tests: {tests} partial differences; undefined: {len(table) - tests}."]
