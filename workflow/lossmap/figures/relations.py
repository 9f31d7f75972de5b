"""Figure 5: how the loss in relevant and irrelevant patches goes with answer accuracy."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lossmap.figures.style import COLOURS, points_with_intervals

# Place beside the loss's own line, colour, marker, and whether the marker is filled: colour is never the only sign.
REGIONS = {"relevant": (-0.16, COLOURS[0], "o", True), "irrelevant": (0.16, COLOURS[1], "s", False)}


def correlation_by_loss(axes: plt.Axes, table: pd.DataFrame) -> None:
    """Rank correlation with interval, a line per loss, of relevant (above) and irrelevant patches; zero is dashed.

    table: one dataset and model of table figure5, with columns region, loss, n, rho, low, high. An undefined
    correlation is written as such, at zero.
    """
    losses = list(dict.fromkeys(table["loss"]))
    axes.axvline(0, color="black", linestyle="--", linewidth=1, zorder=0)
    for region, (shift, colour, marker, filled) in REGIONS.items():
        rows = table[table["region"] == region].set_index("loss").reindex(losses)
        places = np.arange(len(losses)) + shift
        defined = rows["rho"].notna().to_numpy()
        for place in places[~defined]:
            axes.text(
                0, place, "undefined", ha="center", va="center", fontsize=8, color=colour, backgroundcolor="w", zorder=1
            )
        shown = rows[defined]
        points_with_intervals(
            axes, shown["rho"], places[defined], shown["low"], shown["high"], "x",
            color=colour, marker=marker, markersize=6, markerfacecolor=colour if filled else "white",
            linestyle="none", capsize=2.5, label=f"{region} patches",
        )  # fmt: skip
    axes.set_yticks(range(len(losses)), [loss.replace("_", " ") for loss in losses])
    axes.set_ylim(len(losses) - 0.5, -0.5)
