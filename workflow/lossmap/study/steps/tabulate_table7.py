"""Index summaries -> Table 7 (index ablation), with the paper's values beside ours."""

from pathlib import Path

import pandas as pd

from lossmap.study.paper import beside
from lossmap.study.tables import about_copies, read_all, with_interval, write_csv, write_html

INDEXES = {
    "flat_euclidean": "all patches, Euclidean distance",
    "mean_pooled_euclidean": "mean-pooled, Euclidean distance",
    "flat_cosine": "all patches, cosine",
    "mean_pooled_cosine": "mean-pooled, cosine",
    "whitened_euclidean": "mean-pooled and whitened, Euclidean distance",
    "without_sinks_euclidean": "mean-pooled without sinks, Euclidean distance",
}
NOTE = (
    "Share of an image's k nearest neighbours that are the same before and after the connector (k-NN overlap ratio, "
    "the image itself left out), by how embeddings are compared. All patches: an image's patches side by side, as one "
    "long vector. Cosine: inner product of vectors scaled to unit length. Whitened: principal components "
    "that hold 99% of the variance, each scaled to deviation 1, so that no direction outweighs another. Without sinks: "
    "tokens longer than {ratio:g} times the image's median token are left out of the mean; in the last two columns, "
    "the share of such tokens before and after the connector. In brackets: interval for the population "
    "of which the images are a sample. Copies: images with the pixels or the embedding of another. Chance: k / "
    "(n - 1). Paper's convention: each image counts among its own neighbours. Reported: the paper's values for its "
    "LLaVA, whatever the dataset here: it does not say on which images."
)
REPORTED = {"overlap_mean_reported": "reported", "overlap_std_reported": "std, reported"}


def run(*, summaries: list[Path], csv: Path, html: Path, finding: Path, spec: dict) -> None:
    """Gather the overlap by index of all models and datasets.

    spec: sink_ratio, checkpoints (model -> checkpoint), confidence.
    """
    table = read_all(summaries)
    table = beside(table, "table7", ["index", "k"], ["overlap_mean", "overlap_std"], spec["checkpoints"])
    write_csv(table, csv)
    note = NOTE.format(ratio=spec["sink_ratio"])
    write_html(_readable(table), html, "k-NN overlap ratio by index", note)
    finding.write_text(_sentences(table, spec["confidence"]))


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    columns = {
        "dataset": table["dataset"],
        "images": table["n"],
        "copies": table["copies"],
        "model": table["model"],
        "compared by": table["index"].map(INDEXES),
        "k": table["k"],
        "overlap": with_interval(table, "overlap", "low", "high", 3),
        "std": table["std"],
        "chance": table["chance"],
        "paper's convention": table["overlap_paper_convention"],
        "std, paper's convention": table["std_paper_convention"],
    }
    columns |= {title: table[name] for name, title in REPORTED.items() if table[name].notna().any()}
    without = table["index"] == "without_sinks_euclidean"
    columns |= {f"sinks, {stage}": table[f"sinks_{stage}"].where(without) for stage in ("pre", "post")}
    return pd.DataFrame(columns)


def _sentences(table: pd.DataFrame, confidence: float) -> str:
    """One line per model and dataset: overlap by each index at the smallest k."""
    rows = table[table["k"] == table["k"].min()]
    lines = []
    for (dataset, model), group in rows.groupby(["dataset", "model"], sort=False):
        each = ", ".join(
            f"{row.overlap:.2f} [{row.low:.2f}, {row.high:.2f}] ({INDEXES[row.index_name]})"
            for row in group.rename(columns={"index": "index_name"}).itertuples()
        )
        lines.append(f"- **{model}** on {dataset} keeps, of the {rows['k'].iloc[0]} nearest neighbours: {each}.")
    copies = [f"- {line}" for line in about_copies(table)]
    brackets = f"In brackets: {confidence:.0%} interval for the population of which the images are a sample."
    return "\n".join([*lines, *copies, "", brackets, ""])
