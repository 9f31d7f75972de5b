"""Table margins -> its figure."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lossmap.figures.margins import closeness_by_k, fate_of_neighbours
from lossmap.figures.style import legends_below, save, use_style


def run(*, table: Path, pdf: Path, png: Path) -> None:
    """Draw what became of the neighbours and how near the new ones were, a row per dataset."""
    use_style()
    rows = pd.read_csv(table).dropna(subset="k").astype({"k": int})  # measures without k are of pairs of images
    datasets = list(rows.groupby("dataset", sort=False))
    figure, axes = plt.subplots(
        len(datasets), 2, figsize=(7.2, 3 * len(datasets)), squeeze=False, gridspec_kw={"width_ratios": [1.7, 1]}
    )
    for (left, right), (dataset, group) in zip(axes, datasets, strict=True):
        fate_of_neighbours(left, _fates(group))
        close = group[group["measure"] == "closeness"].rename(columns={"value": "closeness"})
        closeness_by_k(right, close)
        left.set_title(f"{dataset} (n = {group['n'].max():,})")
    legends_below(axes[-1])
    figure.tight_layout()
    save(figure, pdf, png)


def _fates(group: pd.DataFrame) -> pd.DataFrame:
    """model, k, kept, near_ties, moved: shares of the k neighbours, which sum to 1."""
    wide = group.pivot(index=["model", "k"], columns="measure", values="value").reset_index()
    lost = 1 - wide["mutual_neighbours"]
    near = (lost * wide["share_near_ties"]).fillna(0)  # nothing is lost, nothing is near
    fates = pd.DataFrame({"model": wide["model"], "k": wide["k"], "kept": 1 - lost, "near_ties": near})
    order = {model: i for i, model in enumerate(group["model"].unique())}
    return fates.assign(moved=lost - near).sort_values("model", key=lambda names: names.map(order), kind="stable")
