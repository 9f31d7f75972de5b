"""How the networks of the ladder learned."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D

from lossmap.figures.style import COLOURS, MARKERS, NOT_CONVERGED

LINES = ("-", "--", ":", "-.")


def kinds_of_lines() -> dict[str, Line2D]:
    """What is thick and what is faint in `training_history`, for a legend."""
    return {
        "held-out images (mark: used)": Line2D([], [], color="grey", linewidth=1.3),
        "training images": Line2D([], [], color="grey", linewidth=0.8, alpha=0.4),
        "not converged": Line2D([], [], **NOT_CONVERGED),
    }


def training_history(axes: plt.Axes, table: pd.DataFrame, networks: list[str], shares: list[int]) -> None:
    """Held-out error by images seen, a line per network and share; the training loss as a faint line of the same kind.

    A mark stands where the held-out error was lowest: those weights are used. A cross at the end: the network has
    not converged. Lines begin at ridge.
    table: the networks of one connector, with columns decoder, training_share, images_seen, training_loss,
    held_out_error, converged.
    networks, shares: all that are drawn in this or another panel, so that each looks the same in all.
    """
    for (network, share), rows in table.groupby(["decoder", "training_share"], sort=False):
        which = networks.index(network)
        colour, marker = COLOURS[which % len(COLOURS)], MARKERS[which % len(MARKERS)]
        line = LINES[shares.index(share) % len(LINES)]
        best = rows.loc[rows["held_out_error"].idxmin()]
        axes.plot(rows["images_seen"], rows["training_loss"], color=colour, linestyle=line, linewidth=0.8, alpha=0.4)
        axes.plot(rows["images_seen"], rows["held_out_error"], color=colour, linestyle=line, linewidth=1.3)
        axes.plot(best["images_seen"], best["held_out_error"], color=colour, marker=marker, markersize=5)
        if not rows["converged"].iloc[-1]:
            axes.plot(*rows[["images_seen", "held_out_error"]].iloc[-1], **NOT_CONVERGED)
        # For the legend: line and mark say which it is, where colours can't be told apart.
        axes.plot([], [], color=colour, linestyle=line, marker=marker, label=f"{network}, {share:.0%}")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda images, _: f"{images / 1000:g}k" if images else "0")
