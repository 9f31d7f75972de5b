"""Figure 6: embeddings before the connector, after it, and after it laid on those before."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

JOINED = 40  # images whose two places are joined by a line


def marks() -> dict[str, Line2D]:
    """What the marks of `alignment_planes` mean, for a legend."""
    return {
        "image; colour: place along the first component before": Line2D(
            [], [], color=plt.get_cmap("viridis")(0.3), marker="o", markersize=4, linestyle="none"
        ),
        "where some images were before, joined with after": Line2D(
            [], [], color="0.6", linewidth=0.5, marker="o", markersize=4, markerfacecolor="none", markeredgecolor="0.4"
        ),
    }


def alignment_planes(axes: list[plt.Axes], table: pd.DataFrame) -> None:
    """Three panels of one model: before and after, each in its own first two principal components, then after rotated
    onto before, in those of before.

    Every image has one colour in all panels, that of its first component before, so that it shows whether images that
    lay together still do. Lines lead from an image's place before (hollow) to that of its rotated embedding; their
    length is the error as far as the plane shows it. table: pre_1, pre_2, post_1, post_2, aligned_1, aligned_2.
    """
    colour = table["pre_1"].rank().to_numpy()
    dots = {"c": colour, "cmap": "viridis", "s": 6, "linewidths": 0}
    for panel, side in zip(axes[:2], ("pre", "post"), strict=True):
        panel.scatter(table[f"{side}_1"], table[f"{side}_2"], **dots)
    some = table.iloc[np.linspace(0, len(table) - 1, min(JOINED, len(table))).astype(int)]
    for row in some.itertuples():
        axes[2].plot([row.pre_1, row.aligned_1], [row.pre_2, row.aligned_2], color="0.6", linewidth=0.5, zorder=0)
    axes[2].scatter(some["pre_1"], some["pre_2"], s=9, facecolors="none", edgecolors="0.4", linewidths=0.5)
    axes[2].scatter(table["aligned_1"], table["aligned_2"], **dots)
    for panel in axes:
        panel.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")


def name_axes(axes: list[plt.Axes], shares: list[tuple[float, float]], residual: float, lengths: list[float]) -> None:
    """Name the axes of `alignment_planes`, and write the residual above the last panel.

    shares: for each panel, the shares of the variance along its two axes. residual, lengths: mean distances, in all
    dimensions: of a rotated embedding from that before; of embeddings before and after from the mean of all.
    """
    for panel, side, both in zip(axes, ("before", "after", "before"), shares, strict=True):
        for name, place, share in zip((panel.set_xlabel, panel.set_ylabel), (1, 2), both, strict=True):
            name(f"component {place} {side} ({share:.0%})", fontsize=7.5, labelpad=3)
    text = f"residual {residual:.2f}\nlengths: {lengths[0]:.2f} before, {lengths[1]:.2f} after"
    axes[-1].annotate(text, (0.5, 1.02), xycoords="axes fraction", ha="center", va="bottom", fontsize=7.5)
