"""Figure 5: how the loss in relevant and irrelevant patches goes with answer accuracy."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lossmap.figures.style import COLOURS, points_with_intervals

# Place below the loss's own line, colour, marker: colour is never the only sign.
REGIONS = {"relevant": (-0.22, COLOURS[0], "o"), "irrelevant": (0.22, COLOURS[1], "s")}
# What is drawn of each: columns, place below its region's, name, look. The finding is solid, the raw value is a ghost.
KINDS = {
    "partial": (
        ("partial_rho", "partial_rho_low", "partial_rho_high"),
        (-0.06, "given patch norm and mask area", {"markersize": 6.5, "elinewidth": 2, "capsize": 3, "zorder": 3}),
    ),
    "raw": (
        ("raw_rho", "raw_rho_low", "raw_rho_high"),
        (0.11, "raw", {"markersize": 4, "elinewidth": 0.8, "capsize": 0, "zorder": 2, "alpha": 0.6}),
    ),
}


def correlation_by_loss(axes: plt.Axes, table: pd.DataFrame) -> None:
    """Rank correlations with intervals, a line per loss, of relevant (above) and irrelevant patches; zero is dashed.

    The partial correlation, given patch norm and mask area, is filled and thick; the raw one under it hollow and thin.
    table: one dataset and model of exhibit figure5, with columns region, loss_kind, partial_rho and raw_rho, each with
    _low and _high. An undefined partial correlation is written as such, at zero.
    """
    losses = list(dict.fromkeys(table["loss_kind"]))
    axes.axvline(0, color="black", linestyle="--", linewidth=1, zorder=0)
    for region, (shift, colour, marker) in REGIONS.items():
        rows = table[table["region"] == region].set_index("loss_kind").reindex(losses)
        for kind, ((value, low, high), (below, name, look)) in KINDS.items():
            places = np.arange(len(losses)) + shift + below
            defined = rows[value].notna().to_numpy()
            for place in places[~defined] if kind == "partial" else []:
                axes.text(
                    0, place, "undefined", ha="center", va="center", fontsize=8, color=colour, backgroundcolor="w",
                    zorder=1,
                )  # fmt: skip
            shown = rows[defined]
            points_with_intervals(
                axes, shown[value], places[defined], shown[low], shown[high], "x",
                color=colour, marker=marker, markerfacecolor=colour if kind == "partial" else "white",
                linestyle="none", label=f"{region} patches, {name}", **look,
            )  # fmt: skip
    names = [textwrap.fill(loss.replace("_", " "), 14) for loss in losses]
    axes.set_yticks(range(len(losses)), names, fontsize=8)
    axes.set_ylim(len(losses) - 0.5, -0.5)
