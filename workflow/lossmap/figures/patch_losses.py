"""Distributions of the images' reconstruction losses."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D

from lossmap.figures.style import COLOURS, MARKERS, log_ticks

LEAST = 1e-4  # losses below it are drawn at it: nothing lost has no logarithm
# Part of a box, as matplotlib calls it -> column.
BOX = {
    "mean": "loss",
    "whislo": "loss_percentile_5",
    "q1": "loss_lower_quartile",
    "med": "loss_median",
    "q3": "loss_upper_quartile",
    "whishi": "loss_percentile_95",
}
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---")  # so that colour is never the only sign


def references() -> dict[str, Line2D]:
    """What the marks and the line of `loss_boxes` mean, for a legend."""
    return {
        "mean of the images": Line2D(
            [], [], color="grey", marker="o", markerfacecolor="w", markersize=5, linestyle="none"
        ),
        "predicting the mean patch": Line2D([], [], color="black", linestyle="--", linewidth=0.8),
    }


def loss_boxes(axes: plt.Axes, table: pd.DataFrame) -> None:
    """Losses of images on a logarithmic axis, a group per dataset, a box per model: quartiles, whiskers from 5 to 95%.

    table: a row per dataset and model, with columns dataset, n, model, loss (the mean), loss_percentile_5,
    loss_lower_quartile, loss_median, loss_upper_quartile and loss_percentile_95.
    """
    table = table.assign(**{name: table[name].clip(lower=LEAST) for name in BOX.values()})
    datasets, models = (list(dict.fromkeys(table[name])) for name in ("dataset", "model"))
    width = 0.8 / len(models)
    for i, model in enumerate(models):
        own = table[table["model"] == model]
        places = own["dataset"].map(datasets.index) + (i - (len(models) - 1) / 2) * width
        drawn = axes.bxp(
            [{part: row[name] for part, name in BOX.items()} for row in own.to_dict("records")],
            positions=places, widths=0.85 * width, showfliers=False, patch_artist=True, showmeans=True,
            medianprops={"color": "black"}, label=model,
            meanprops={"marker": MARKERS[0], "markeredgecolor": "black", "markerfacecolor": "w", "markersize": 4},
        )  # fmt: skip
        for box in drawn["boxes"]:
            how = {"facecolor": COLOURS[i % len(COLOURS)], "hatch": HATCHES[i % len(HATCHES)]}
            box.set(**how, alpha=0.6, edgecolor="black", linewidth=0.8)
    axes.axhline(1, color="black", linestyle="--", linewidth=0.8)
    counts = table.groupby("dataset")["n"].first()
    axes.set_xticks(range(len(datasets)), [f"{name}\nn = {counts[name]:,}" for name in datasets])
    axes.set_yscale("log")
    log_ticks(axes.yaxis)
    axes.set_ylabel("squared error of an image's patches\n(1: predicting the mean)")
