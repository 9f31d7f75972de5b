"""Relations of patch loss and answer accuracy -> the table behind Figure 5, or that of the within-image comparison."""

from pathlib import Path

import pandas as pd

from lossmap.measures.relations import WITHIN, adjusted_p
from lossmap.scoring import SCORE_NAMES
from lossmap.tables import with_interval, write_csv, write_html

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
    "score. In brackets: bootstrap interval over images. p: by permutation, two-sided; adjusted: Benjamini-Hochberg, "
    "the family being all tests of that column. "
)
CORRELATION_NOTE = SHARED_NOTE + (
    "rho: Spearman's rank correlation of loss and answer accuracy; negative: where more is lost, answers are worse. "
    "Partial rho: given the mean norm of those patches before the connector, and the area of the mask. rho, signed: of "
    "the signed norm difference. Paper's convention: accuracy as min(matches / 3, 1)."
)
WITHIN_NOTE = SHARED_NOTE + (
    "Within each image, the loss in relevant patches less that in irrelevant ones: what sets images apart cancels out. "
    "Right: answers with at least the accuracy that the configuration sets; wrong: all others. Negative difference: "
    "wrong answers come with more loss where the answer lies. rho: of the same difference of losses with accuracy."
)


def run(*, relations: list[Path], csv: Path, html: Path, finding: Path, spec: dict) -> None:
    """Gather the relations of all models and datasets into one of two tables.

    spec: table ("figure5": relevant and irrelevant patches, or "within_image": their difference), confidence.
    """
    rows = pd.concat([pd.read_parquet(path) for path in relations], ignore_index=True)
    within = spec["table"] == "within_image"
    table = rows[(rows["region"] == WITHIN) == within].reset_index(drop=True)
    table["p_adjusted"] = adjusted_p(table["p_permutation"])
    table["difference_p_adjusted"] = adjusted_p(table["difference_p"])
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
        "loss": table["loss"].str.replace("_", " "),
        **{title: table[name] for name, title in COUNTS.items()},
        "unscored": table["unscored"],
    }
    if within:
        for side in ("right", "wrong"):
            columns[f"{side} answers"] = table[side]
            columns[f"loss, {side}"] = with_interval(table, f"loss_{side}", f"loss_{side}_low", f"loss_{side}_high", 3)
        columns |= {
            "right less wrong": with_interval(table, "difference", "difference_low", "difference_high", 3),
            "p of difference": table["difference_p"],
            "adjusted p of difference": table["difference_p_adjusted"],
        }
    columns |= {
        "rho": with_interval(table, "rho", "low", "high", 3),
        "p": table["p_permutation"],
        "adjusted p": table["p_adjusted"],
        "partial rho": with_interval(table, "rho_partial", "partial_low", "partial_high", 3),
        "rho, signed": table["rho_signed"],
        "rho, paper's convention": table["rho_paper_convention"],
        "undefined, because": _reasons(table, within),
    }
    return pd.DataFrame(columns).dropna(axis="columns", how="all")


def _reasons(table: pd.DataFrame, within: bool) -> pd.Series:
    """Why something in a row is undefined; None where nothing is."""
    reasons = table["reason"] + (" " + table["difference_reason"] if within else "")
    return reasons.str.strip().replace("", None)


def _correlations(table: pd.DataFrame) -> list[str]:
    """One line per model and dataset: squared error and accuracy, in relevant and in irrelevant patches."""
    lines = []
    for (dataset, model), group in table[table["loss"] == "squared_error"].groupby(["dataset", "model"], sort=False):
        each = []
        for row in group.itertuples():
            if pd.isna(row.rho):
                each.append(f"undefined in {row.region} patches ({row.reason})")
                continue
            each.append(
                f"{row.rho:.2f} [{row.low:.2f}, {row.high:.2f}] in {row.region} patches (n = {row.n}, adjusted p "
                f"{row.p_adjusted:.4f}; given patch norm and mask area {row.rho_partial:.2f})"
            )
        lines.append(f"- **{model}** on {dataset}, squared error and accuracy: {'; '.join(each)}.")
    tests = int(table["p_adjusted"].notna().sum())
    return [*lines, "", f"Family of tests: {tests} rank correlations; undefined: {len(table) - tests}."]


def _contrasts(table: pd.DataFrame) -> list[str]:
    """One line per model and dataset: how much more loss lies where the answer is, for right and for wrong answers."""
    lines = []
    for row in table[table["loss"] == "squared_error"].itertuples():
        start = f"- **{row.model}** on {row.dataset}, squared error in relevant less that in irrelevant patches: "
        if pd.isna(row.difference):
            lines.append(
                f"{start}undefined for {row.right} right and {row.wrong} wrong answers: {row.difference_reason}."
            )
            continue
        lines.append(
            f"{start}{row.loss_right:.3f} for {row.right} right answers, {row.loss_wrong:.3f} for {row.wrong} wrong; "
            f"difference {row.difference:.3f} [{row.difference_low:.3f}, {row.difference_high:.3f}], adjusted p "
            f"{row.difference_p_adjusted:.4f}."
        )
    tests = int(table["difference_p_adjusted"].notna().sum())
    return [*lines, "", f"Family of tests: {tests} differences; undefined: {len(table) - tests}."]
