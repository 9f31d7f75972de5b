"""Why neighbours change: preserved, lost as near-ties, moved across a clear margin; and how near the new ones were."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lossmap.figures.style import COLOURS, MARKERS

KINDS = {"preserved": COLOURS[0], "lost: near-tie": COLOURS[8], "lost: moved across a clear margin": COLOURS[3]}
LETTERS = 50  # that fit in a line below the bars
HATCHES = {"preserved": "", "lost: near-tie": "....", "lost: moved across a clear margin": "////"}


def fate_of_neighbours(axes: plt.Axes, table: pd.DataFrame) -> None:
    """What became of the neighbours, a bar per model and k. table: model, k; shares preserved, near_ties, moved."""
    models, ks = list(table["model"].unique()), sorted(table["k"].unique())
    width = 0.8 / len(ks)
    for i, model in enumerate(models):
        for j, k in enumerate(ks):
            row = table[(table["model"] == model) & (table["k"] == k)].iloc[0]
            x, base = i + (j - (len(ks) - 1) / 2) * width, 0.0
            for (kind, colour), share in zip(
                KINDS.items(), (row["preserved"], row["near_ties"], row["moved"]), strict=True
            ):
                first = kind if i == j == 0 else None
                axes.bar(
                    x, share, 0.9 * width, base, color=colour, hatch=HATCHES[kind], edgecolor="white", linewidth=0,
                    label=first,
                )  # fmt: skip
                base += share
            axes.annotate(k, (x, 0), (0, -2), textcoords="offset points", ha="center", va="top", fontsize=7)
    axes.set(ylim=(0, 1), ylabel="share of neighbours\n(by cosine)")
    axes.annotate("k =", (0, 0), (1, -2), "axes fraction", textcoords="offset points", va="top", fontsize=7)
    axes.set_xticks(range(len(models)), [textwrap.fill(model, LETTERS // len(models)) for model in models], fontsize=7)
    axes.tick_params(axis="x", length=0, pad=12)


def closeness_by_k(axes: plt.Axes, table: pd.DataFrame) -> None:
    """How near the neighbours after were before: 1, as the neighbours before; 0, as random images.

    table: model, k, closeness, closeness_low, closeness_high.
    """
    for i, (model, rows) in enumerate(table.groupby("model", sort=False)):
        rows, colour = rows.sort_values("k"), COLOURS[i % len(COLOURS)]
        axes.plot(rows["k"], rows["closeness"], color=colour, marker=MARKERS[i % len(MARKERS)], label=model)
        axes.fill_between(
            rows["k"], rows["closeness_low"], rows["closeness_high"], color=colour, alpha=0.2, linewidth=0
        )
    axes.axhline(0, color="black", linestyle="--", linewidth=1, label="random images")
    ks = sorted(table["k"].unique())
    axes.set(
        xscale="log",
        ylim=(min(-0.05, np.nanmin(table["closeness_low"])), 1),
        xlabel="neighbours k",
        ylabel="closeness preserved\n(by cosine)",
    )
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
