"""Figure 3: the k-NN overlap ratio by k."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import NullLocator

from lossmap.figures.style import COLOURS, MARKERS


def overlap_by_k(axes: plt.Axes, table: pd.DataFrame) -> None:
    """Mean overlap against k, a line per model, with interval, chance level and, where there are any, reported values.

    table: one dataset and metric of figure3's table, with columns model, k, overlap, overlap_low, overlap_high, chance,
    overlap_reported.
    The paper's values count each image among its own neighbours, so they lie above ours for the same embeddings.
    """
    for i, (model, rows) in enumerate(table.groupby("model", sort=False)):
        rows = rows.sort_values("k")
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        axes.plot(rows["k"], rows["overlap"], color=colour, marker=marker, label=model)
        axes.fill_between(rows["k"], rows["overlap_low"], rows["overlap_high"], color=colour, alpha=0.2, linewidth=0)
        if rows["overlap_reported"].notna().any():
            axes.plot(
                rows["k"], rows["overlap_reported"], color=colour, marker=marker, fillstyle="none", linestyle=":",
                label=f"{model}, paper",
            )  # fmt: skip
    chance = table.groupby("k")["chance"].first()
    axes.plot(chance.index, chance, color="black", linestyle="--", linewidth=1, label="chance")
    axes.set(xscale="log", ylim=(0, 1), xlabel="neighbours k")
    axes.set_xticks(chance.index, [str(k) for k in chance.index])
    axes.xaxis.set_minor_locator(NullLocator())
