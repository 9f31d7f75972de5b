"""Table figure5 -> Figure 5."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lossmap.figures.relations import correlation_by_loss
from lossmap.figures.style import legend_below, save, use_style
from lossmap.study.scoring import SCORE_NAMES


def run(*, table: Path, pdf: Path, png: Path) -> None:
    """Draw how patch loss goes with accuracy: a row of panels per dataset, a panel per model."""
    use_style()
    rows = pd.read_csv(table)
    datasets, models = rows["dataset"].unique(), rows["model"].unique()
    size = (2.3 * len(models) + 1.2, 2.2 * len(datasets) + 0.4)
    figure, axes = plt.subplots(
        len(datasets), len(models), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for line, dataset in zip(axes, datasets, strict=True):
        for panel, model in zip(line, models, strict=True):
            own = rows[(rows["dataset"] == dataset) & (rows["model"] == model)]
            correlation_by_loss(panel, own)
            used = ", ".join(f"{n} {region}" for region, n in own.groupby("region", sort=False)["n"].first().items())
            panel.set_title(f"{model} on {dataset}\nn: {used}", fontsize=8)
    scores = " or ".join(rows["score"].map(SCORE_NAMES).unique())
    figure.supxlabel(f"rank correlation of loss and {scores}", fontsize="medium")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend_below(figure, dict(zip(labels, handles, strict=True)), 2)
    save(figure, pdf, png)
