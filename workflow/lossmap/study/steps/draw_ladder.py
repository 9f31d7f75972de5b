"""Table ladder -> the figure of what each reconstructor leaves unexplained."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lossmap.figures.ladder import best_by_connector, hollow_marks, ladder_by_rung
from lossmap.figures.style import save, use_style
from lossmap.reconstruct.specs import LINEAR


def run(*, table: Path, pdf: Path, png: Path) -> None:
    """Draw the ladder by rung above, and what the best rung leaves of each connector below; a column per model."""
    use_style()
    models = list(pd.read_csv(table).groupby("model", sort=False))
    connectors = max(rows["connector"].nunique() for _, rows in models)
    heights = [2.3, 0.32 * connectors + 0.2]
    figure, axes = plt.subplots(
        2, len(models), figsize=(3 * len(models) + 1, sum(heights) + 1.8), sharey="row", squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    labelled = {}
    for (above, below), (model, rows) in zip(axes.T, models, strict=True):
        ladder_by_rung(above, rows, LINEAR)
        best_by_connector(below, rows)
        above.set_title(f"{model} (n = {rows['n'].iloc[0]:,})", fontsize="medium")
        for panel in (above, below):
            handles, labels = panel.get_legend_handles_labels()
            labelled |= dict(zip(labels, handles, strict=True))
    labelled |= hollow_marks()
    axes[1, len(models) // 2].set_xlabel("fraction of variance unexplained by the best decoder of each connector")
    axes[0, 0].set_ylabel("fraction of variance unexplained")
    figure.legend(labelled.values(), labelled, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    figure.tight_layout()
    save(figure, pdf, png)
