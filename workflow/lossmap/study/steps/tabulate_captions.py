"""Relations of loss and CIDEr -> Table 3 (lower half: CIDEr) or Table 4, with the paper's values beside ours."""

from pathlib import Path

import pandas as pd

from lossmap.study.paper import beside
from lossmap.study.relation_tables import correlations, differences, reasons, with_adjusted_p
from lossmap.study.tables import interval_text, p_value, read_all, with_interval, write_csv, write_html

# Images of the splits on which the paper reports: its numbers stand beside ours of a whole split only.
PAPER_IMAGES = {"coco-karpathy": 5000, "flickr30k": 1000}
CIDER = ["cider", "cider_low", "cider_high", "cider_std", "cider_paper_convention"]
CIDER_NOTE = (
    "CIDEr-D x 100 of greedy captions against all references, PTB tokenisation: mean over images with bootstrap "
    "interval, and standard deviation. Unscored: images with a loss but without a scored caption. Empty: captions "
    "without a word, which score 0. Paper's convention: raw strings, not tokenised. Reported: the paper's value, where "
    "the study has its model and dataset."
)
RELATION_NOTE = (
    "Partial: given the mean norm of an image's patches before the connector and the mean number of words of its "
    "references, since images with more to see take more words, lose more and score less; this is the finding. Raw: "
    "without that, as in the paper. rho: Spearman's rank correlation of loss and CIDEr; negative: images that lost "
    "more are described worse. CIDEr of the quarters of the images with the highest and with the lowest loss; gain: "
    "lowest less highest, partial: of the quarters by what the ranks of norm and words leave of the loss. In brackets: "
    "bootstrap interval over images. p: by permutation, two-sided; <=: no permutation came as far, so that p is an "
    "upper bound; adjusted: Benjamini-Hochberg, the family being all tests of that column. Loss: mean over patches, by "
    "the best reconstructor; the norm difference by its absolute value. Unscored: images with a loss but without a "
    "scored caption. Paper's convention: CIDEr on raw strings. Reported: the paper's value, where the study has its "
    "model and dataset."
)


def run(*, relations: list[Path], csv: Path, html: Path, finding: Path, spec: dict) -> None:
    """Gather the relations of all models and datasets into one of two tables.

    spec: table ("table3_cider" or "table4"), checkpoints (model -> checkpoint), confidence.
    """
    rows = read_all(relations).rename(columns={"n": "images"})
    if spec["table"] == "table3_cider":
        table = _cider(rows, spec["checkpoints"])
        write_html(_readable_cider(table), html, "CIDEr of the generated captions", CIDER_NOTE)
        lines = _cider_sentences(table)
    else:
        table = _relations(rows, spec["checkpoints"])
        write_html(_readable_relations(table), html, "Loss of an image and CIDEr of its caption", RELATION_NOTE, 4)
        lines = _relation_sentences(table)
    write_csv(table, csv)
    lines += ["", f"In brackets: {spec['confidence']:.0%} bootstrap interval over images.", ""]
    finding.write_text("\n".join(lines))


def _cider(rows: pd.DataFrame, checkpoints: dict) -> pd.DataFrame:
    """One row per dataset and model."""
    table = rows[["dataset", "model", "images", "unscored", "empty", *CIDER]].drop_duplicates(["dataset", "model"])
    return _beside(table, "table3_table9", ["cider"], checkpoints)


def _readable_cider(table: pd.DataFrame) -> pd.DataFrame:
    """The table with intervals beside their values."""
    columns = {
        **_names(table),
        "empty": table["empty"],
        "CIDEr": with_interval(table, "cider", "cider_low", "cider_high", 1),
        "std": _text(table["cider_std"], 1),
        "paper's convention": _text(table["cider_paper_convention"], 1),
        "reported": _text(table["cider_reported"], 2),
    }
    return pd.DataFrame(columns)


def _cider_sentences(table: pd.DataFrame) -> list[str]:
    """One line per model and dataset, for the report."""
    return [
        f"- **{row.model}** on {row.dataset}: CIDEr {row.cider:.1f} [{row.cider_low:.1f}, {row.cider_high:.1f}] over "
        f"{row.images} images."
        for row in table.itertuples()
    ]


def _relations(rows: pd.DataFrame, checkpoints: dict) -> pd.DataFrame:
    """One row per dataset, model and loss. The paper's loss is the squared error."""
    table, values = rows.drop(columns=["empty", *CIDER]), ["cider_high_loss", "cider_low_loss", "spearman"]
    table = _beside(with_adjusted_p(table), "table4", values, checkpoints)
    table.loc[table["loss"] != "squared_error", [f"{name}_reported" for name in values]] = float("nan")
    return table


def _readable_relations(table: pd.DataFrame) -> pd.DataFrame:
    """The table with intervals beside their values, without columns that hold nothing."""
    columns = {**_names(table), "kind of loss": table["loss"].str.replace("_", " ")}
    columns |= correlations(table)
    columns["raw rho, paper's convention"] = _text(table["rho_paper_convention"], 3)
    columns["raw rho, reported"] = _text(table["spearman_reported"], 3)
    columns |= differences(table, "gain", 1)
    quarters = {"highest": "cider_high_loss", "lowest": "cider_low_loss"}
    for title, name in quarters.items():
        columns[f"CIDEr, {title} loss"] = with_interval(table, name, f"{name}_low", f"{name}_high", 1)
    for title, name in quarters.items():
        columns[f"CIDEr, {title} loss, paper's convention"] = _text(table[f"{name}_paper_convention"], 1)
        columns[f"CIDEr, {title} loss, reported"] = _text(table[f"{name}_reported"], 2)
    columns["undefined, because"] = reasons(table, "reason", "difference_reason", "partial_difference_reason")
    return pd.DataFrame(columns).dropna(axis="columns", how="all")


def _relation_sentences(table: pd.DataFrame) -> list[str]:
    """One line per model and dataset, for the report: how squared error goes with CIDEr."""
    lines = []
    for row in table[table["loss"] == "squared_error"].itertuples():
        start = f"- **{row.model}** on {row.dataset} ({row.images} images): "
        if pd.isna(row.rho_partial):
            lines.append(f"{start}no partial rank correlation of squared error and CIDEr: {row.reason}.")
            continue
        p = p_value(row.partial_p_adjusted, at_floor=row.partial_p_at_floor)
        gain = interval_text(row.partial_difference, row.partial_difference_low, row.partial_difference_high, 1)
        lines.append(
            f"{start}given patch norm and the references' words, squared error and CIDEr correlate by "
            f"{interval_text(row.rho_partial, row.partial_low, row.partial_high, 2)} (adjusted p {p}; raw: "
            f"{interval_text(row.rho, row.low, row.high, 2)}). CIDEr of the quarter with the lowest loss less that of "
            f"the quarter with the highest, given the same: {gain} (raw: "
            f"{interval_text(row.difference, row.difference_low, row.difference_high, 1)})."
        )
    tests = int(table["partial_p_adjusted"].notna().sum())
    return [*lines, "", f"Family of tests: {tests} partial rank correlations; undefined: {len(table) - tests}."]


def _names(table: pd.DataFrame) -> dict:
    return {name: table[name] for name in ("dataset", "model", "images", "unscored")}


def _text(values: pd.Series, digits: int) -> list[str | None]:
    """Numbers with so many decimals; None where there is none."""
    return [None if pd.isna(value) else f"{value:.{digits}f}" for value in values]


def _beside(table: pd.DataFrame, reported: str, values: list[str], checkpoints: dict) -> pd.DataFrame:
    """The table with the paper's values, nan where ours is of another dataset or of a part of it."""
    table = beside(table, reported, ["dataset"], values, checkpoints)
    theirs = table["images"] == table["dataset"].map(PAPER_IMAGES)
    table.loc[~theirs, [f"{name}_reported" for name in values]] = float("nan")
    return table
