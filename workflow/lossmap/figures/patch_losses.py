"""Histogram of the images' reconstruction losses."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from lossmap.figures.style import COLOURS

LINES = ("-", "--", "-.", ":")  # so that colour is never the only sign


def references() -> dict[str, Line2D]:
    """What the triangles and the upright line of `loss_histogram` mean, for a legend."""
    return {
        "mean of the images": Line2D([], [], color="grey", marker="^", markersize=6, linestyle="none"),
        "predicting the mean patch": Line2D([], [], color="black", linestyle="--", linewidth=0.8),
    }


def loss_histogram(axes: plt.Axes, table: pd.DataFrame, bins: np.ndarray) -> None:
    """Share of the images by loss, an outline per model; the mean of each as a tick at the bottom.

    table: the images of one data set, with columns model and squared_error (of the model's best reconstructor). bins:
    edges, the same in every panel that is to be compared.
    """
    for i, (model, rows) in enumerate(table.groupby("model", sort=False)):
        share, _ = np.histogram(rows["squared_error"], bins)
        colour, line = COLOURS[i % len(COLOURS)], LINES[i % len(LINES)]
        axes.stairs(share / len(rows), bins, color=colour, fill=True, alpha=0.25)
        axes.stairs(share / len(rows), bins, color=colour, linestyle=line, linewidth=1.3, label=model)
        axes.plot(rows["squared_error"].mean(), 0, marker="^", color=colour, markersize=6, clip_on=False, zorder=3)
    axes.axvline(1, color="black", linestyle="--", linewidth=0.8)
    axes.set_xlim(bins[0], bins[-1])
