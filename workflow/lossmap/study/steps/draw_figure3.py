"""Table figure3 -> Figure 3."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lossmap.figures.overlap import overlap_by_k
from lossmap.figures.style import legend_below, save, use_style
from lossmap.study.columns import METRICS


def run(*, table: Path, pdf: Path, png: Path) -> None:
    """Draw the k-NN overlap ratio by k, a panel per dataset, by Euclidean distance (or the table's only metric)."""
    use_style()
    rows = pd.read_csv(table)
    metric = "euclidean" if (rows["metric"] == "euclidean").any() else rows["metric"][0]
    rows = rows[rows["metric"] == metric]
    datasets = list(rows.groupby("dataset", sort=False))
    figure, axes = plt.subplots(1, len(datasets), figsize=(2.3 * len(datasets) + 0.6, 2.5), sharey=True, squeeze=False)
    for panel, (dataset, group) in zip(axes[0], datasets, strict=True):
        overlap_by_k(panel, group)
        panel.set_title(f"{dataset} (n = {group['n'].iloc[0]:,})")
    axes[0, 0].set_ylabel(f"overlap (KNOR),\nby {METRICS[metric]}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend_below(figure, dict(zip(labels, handles, strict=True)), 4)
    figure.tight_layout()
    save(figure, pdf, png)
