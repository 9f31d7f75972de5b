"""What random projections preserve of the neighbours, by their number of dimensions."""

import matplotlib.pyplot as plt
import pandas as pd

from lossmap.figures.style import COLOURS, MARKERS


def overlap_by_dimension(axes: plt.Axes, table: pd.DataFrame, connectors: dict[str, float]) -> None:
    """Share of neighbours that random projections preserve, a line per model; where the connector stands, a large mark.

    table: model, dimension, overlap, overlap_low, overlap_high, of one k; the largest dimension is the connector's
    output width. connectors: model -> the connector's own overlap.
    """
    models = [(model, rows.sort_values("dimension")) for model, rows in table.groupby("model", sort=False)]
    for i, (model, rows) in enumerate(models):
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(rows["dimension"], rows["overlap"], color=colour, linewidth=1, label=model)
        axes.fill_between(
            rows["dimension"], rows["overlap_low"], rows["overlap_high"], color=colour, alpha=0.2, linewidth=0
        )
    for i, (model, rows) in enumerate(models):  # after the lines, so that a legend's columns are lines and marks
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        axes.plot(rows["dimension"].iloc[-1], connectors[model], marker, color=colour, label=f"{model}: connector")
    axes.set(ylim=(0, 1), xlabel="dimensions of the projection", ylabel="overlap (KNOR),\nby cosine")
    axes.set_xscale("log", base=2)
    shown = sorted(table["dimension"].unique())
    axes.set_xticks(shown, [f"{m:.0f}" for m in shown])
    axes.minorticks_off()
