"""Patch loss summaries -> Tables 3, 6 and 9, with the paper's values beside ours."""

from pathlib import Path

import pandas as pd

from lossmap.study.paper import beside
from lossmap.study.tables import marked, read_all, with_interval, write_csv, write_html

TITLES = {
    "table3": "Table 3: reconstruction loss on captioned images",
    "table6": "Table 6: reconstruction loss by network",
    "table9": "Table 9: reconstruction loss on question answering images",
}
# Images of the paper's test sets, where it or their authors say how many.
PAPERS_IMAGES = {"coco-karpathy": 5000, "flickr30k": 1000, "vizwiz": 1131, "seedbench": 5624}
REPORTED = ["loss_mean", "loss_std"]
NOTE = (
    "Loss: squared error of the patch embeddings that {who} makes from the connector's output, mean over features "
    "(standardised with the training set's statistics), patches and images; 1 is what predicting the mean scores on "
    "the training set. Std: its spread over images. FVU: fraction of variance unexplained on these very images, 1 for "
    "the mean. Cosine error: 1 - cosine of patch and reconstruction. Norm difference: length of the patch less that of "
    "its reconstruction. Not converged: the network's held-out error had not come to rest, so its loss says little of "
    "what could be recovered; it is never the best. In brackets: bootstrap interval over images. Reported: the paper's "
    "loss, where the study has its model, dataset and number of images. The paper standardises each set differently, "
    "and its Qwen2.5-VL losses are of a network whose trained weights were never loaded."
)
WITHOUT = (
    " Near-copies: images that are also among the training images, encoded anew or resized; the last column is without "
    "them."
)


def run(*, summaries: list[Path], csv: Path, html: Path, finding: Path, spec: dict) -> None:
    """Gather the patch loss summaries of all models and data sets of one table.

    spec: table (table3, table9: each model's best reconstructor; table6: every network), networks (their names),
    checkpoints (model -> checkpoint), confidence.
    """
    table = read_all(summaries)
    ablation = spec["table"] == "table6"
    table = table[table["reconstructor"].isin(spec["networks"]) if ablation else table["best"]].reset_index(drop=True)
    source, keys = ("table6", ["reconstructor", "dataset"]) if ablation else ("table3_table9", ["dataset"])
    table = beside(table, source, keys, REPORTED, spec["checkpoints"])
    other = table["n"] != table["dataset"].map(PAPERS_IMAGES).fillna(table["n"])
    table.loc[other, [f"{name}_reported" for name in REPORTED]] = float("nan")
    write_csv(table, csv)
    who = "each network, trained on the largest share of the images," if ablation else "the best reconstructor"
    note = NOTE.format(who=who) + WITHOUT * bool(table["near_copies"].any())
    write_html(_readable(table), html, TITLES[spec["table"]], note)
    finding.write_text(_sentences(table, spec))


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table with intervals beside their values."""
    columns = {"dataset": table["dataset"], "images": table["n"], "model": table["model"]}
    columns |= {"reconstructor": marked(table, "reconstructor"), "parameters": table["parameters"]}
    columns["loss"] = with_interval(table, "loss", "loss_low", "loss_high", 3)
    columns["reported"] = table["loss_mean_reported"]
    columns |= {"std": table["loss_std"], "std, reported": table["loss_std_reported"]}
    for title, name in (
        ("FVU", "fvu"), ("cosine error", "cosine_error"), ("norm difference", "norm_difference")
    ):  # fmt: skip
        columns[title] = with_interval(table, name, f"{name}_low", f"{name}_high", 3)
    if table["near_copies"].any():
        name = "fvu_without_near_copies"
        columns["near-copies"] = table["near_copies"]
        columns["FVU without them"] = with_interval(table, name, f"{name}_low", f"{name}_high", 3)
    return pd.DataFrame(columns)


def _sentences(table: pd.DataFrame, spec: dict) -> str:
    """One line per model, for the report: its loss on each data set, and by each network where there are several."""
    lines, table = [], table.assign(reconstructor=marked(table, "reconstructor"))
    for model, group in table.groupby("model", sort=False):
        each = ", ".join(
            f"{row.loss:.3f} [{row.loss_low:.3f}, {row.loss_high:.3f}] on {row.dataset} ({row.reconstructor})"
            for row in group.itertuples()
        )
        lines.append(f"- **{model}** is reconstructed with a loss of {each}.")
    for dataset, row in table[table["near_copies"] > 0].groupby("dataset", sort=False).first().iterrows():
        lines.append(
            f"- {row['near_copies']} of {row['n']} images of {dataset} are near-copies of training images (encoded anew"
            " or resized); the table gives the FVU without them too."
        )
    closing = f"In brackets: {spec['confidence']:.0%} bootstrap interval over images. 1 is predicting the mean."
    return "\n".join([*lines, "", closing, ""])
