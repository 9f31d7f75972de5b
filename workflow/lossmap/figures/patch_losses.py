"""Distributions of the images' reconstruction losses."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lossmap.figures.style import COLOURS, MARKERS, log_ticks

LEAST = 1e-4  # losses below it are drawn at it: nothing lost has no logarithm
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---")  # so that colour is never the only sign


def references() -> dict[str, Line2D]:
    """What the marks and the line of `loss_boxes` mean, for a legend."""
    return {
        "mean of the images": Line2D(
            [], [], color="grey", marker="o", markerfacecolor="w", markersize=5, linestyle="none"
        ),
        "predicting the mean patch": Line2D([], [], color="black", linestyle="--", linewidth=0.8),
    }


def loss_boxes(axes: Axes, table: pd.DataFrame) -> None:
    """Losses of images on a logarithmic axis, a group per dataset, a box per model: quartiles, whiskers from 5 to 95%.

    table: columns dataset, model, squared_error (of the model's best reconstructor), a row per image.
    """
    datasets, models = (list(dict.fromkeys(table[name])) for name in ("dataset", "model"))
    width = 0.8 / len(models)
    for i, model in enumerate(models):
        own = [table[(table["model"] == model) & (table["dataset"] == name)]["squared_error"] for name in datasets]
        losses = [np.maximum(values, LEAST) for values in own]
        places = np.arange(len(datasets)) + (i - (len(models) - 1) / 2) * width
        colour = COLOURS[i % len(COLOURS)]
        drawn = axes.boxplot(
            losses, positions=places, widths=0.85 * width, whis=(5, 95), showfliers=False, patch_artist=True,
            medianprops={"color": "black"}, label=model,
        )  # fmt: skip
        for box in drawn["boxes"]:
            box.set(facecolor=colour, alpha=0.6, hatch=HATCHES[i % len(HATCHES)], edgecolor="black", linewidth=0.8)
        axes.plot(
            places, [values.mean() for values in losses], linestyle="none", marker=MARKERS[0], color="black",
            markerfacecolor="w", markersize=4, zorder=4,
        )  # fmt: skip
    axes.axhline(1, color="black", linestyle="--", linewidth=0.8)
    counts = [table[table["dataset"] == name].groupby("model").size().iloc[0] for name in datasets]
    axes.set_xticks(
        range(len(datasets)), [f"{name}\nn = {count:,}" for name, count in zip(datasets, counts, strict=True)]
    )
    axes.set_yscale("log")
    log_ticks(axes.yaxis)
    axes.set_ylabel("squared error of an image's patches\n(1: predicting the mean)")
