"""How two models differ on the same images: points with intervals about zero."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lossmap.figures.style import COLOURS, points_with_intervals

# What a panel shows -> its axis.
PANELS = {
    "overlap": "difference of overlap\n(right: the tuned\nmodel preserves more)",
    "FVU": "difference of FVU\n(left: the tuned\nmodel loses less)",
    "score": "difference of score\n(right: the tuned\nmodel scores more)",
}
NAMES = {"vqa_accuracy": "VQA", "vqa_match": "exact match", "choice_accuracy": "choices", "cider": "CIDEr / 100"}
# CIDEr goes to 10 times what an accuracy can be: drawn as a share of 100, so that both can be read on one axis.
SCALES = {"cider": 0.01}


def differences(axes: plt.Axes, table: pd.DataFrame, panel: str) -> None:
    """One line per row: difference with interval; hollow where the interval holds 0, which is dashed.

    table: dataset, measure, metric, k, difference, low, high; panel: a name of PANELS. An undefined difference is
    written as such. An empty table leaves an empty panel that says so.
    """
    axes.axvline(0, color="black", linestyle="--", linewidth=1, zorder=0)
    axes.set_xlabel(PANELS[panel], fontsize="small")
    if table.empty:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
        axes.set_yticks([])
        return
    scale = table["measure"].map(SCALES).fillna(1).to_numpy()
    values = table[["difference", "low", "high"]].mul(scale, axis=0)
    for place, (value, low, high) in enumerate(values.itertuples(index=False)):
        if np.isnan([value, low, high]).any():
            axes.text(0, place, "undefined", ha="center", va="center", fontsize=8, backgroundcolor="w")
            continue
        away = low > 0 or high < 0
        points_with_intervals(
            axes, value, place, low, high, "x", color=COLOURS[0], marker="o", markersize=6, elinewidth=2, capsize=3,
            markerfacecolor=COLOURS[0] if away else "white", linestyle="none",
        )  # fmt: skip
    axes.set_yticks(range(len(table)), [_label(row) for row in table.itertuples()], fontsize="small")
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.margins(x=0.15)


def _label(row) -> str:
    if row.measure == "overlap":
        return f"{row.dataset}, k = {int(row.k)}" + (" (cosine)" if row.metric == "cosine" else "")
    return f"{row.dataset}, {NAMES[row.measure]}" if row.measure in NAMES else row.dataset
