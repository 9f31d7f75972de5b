"""Where wrong answers are lost, by type of question: a panel for each model."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossmap.figures.style import COLOURS, legend_below

# Along the way of an answer. Colour is never the only sign: the order is the same in each bar, and hatches differ.
PARTS = {
    "lost_before": ("lost before the connector", 4, ""),
    "lost_at_connector": ("lost at the connector", 3, "////"),
    "not_used": ("readable, not used by the language model", 0, ".."),
    "not_attributed": ("wrong, not attributed: readers too weak", "0.85", ""),
    "unread": ("right, though readers don't read it", "white", "xx"),
}


def where_lost_by_type(table: pd.DataFrame) -> Figure:
    """Stacked bars of shares of all questions, in percent, for all and for each question type.

    table: of exhibit where_lost; one row of panels for each dataset, one panel for each model.
    """
    datasets, models = list(dict.fromkeys(table["dataset"])), list(dict.fromkeys(table["model"]))
    rows = table[table["grouping"] != "answer type"]
    most = max(len(group) for _, group in rows.groupby(["dataset", "model"]))
    size = (2.2 * len(models) + 1, (0.42 * most + 0.9) * len(datasets))
    figure, panels = plt.subplots(len(datasets), len(models), figsize=size, squeeze=False, sharex=True, sharey="row")
    marks: dict[str, Any] = {}
    for line, dataset in zip(panels, datasets, strict=True):
        for axes, model in zip(line, models, strict=True):
            here = rows[(rows["dataset"] == dataset) & (rows["model"] == model)]
            marks |= shares_of_questions(axes, here)
            axes.set_title(model if len(datasets) == 1 else f"{model}\n{dataset}", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("share of all questions (%)", fontsize=8)
    panels[0, 0].set_xlim(0, min(100, panels[0, 0].get_xlim()[1]))
    figure.tight_layout()
    legend_below(figure, marks, 2, "x-small")
    return figure


def shares_of_questions(axes: Axes, rows: pd.DataFrame) -> dict[str, Any]:
    """One model's bars, from what is lost first to what is lost last; lines above them: intervals of each share, from
    where it begins. Returns label -> mark, for a legend.

    rows: of exhibit where_lost.
    """
    places, start = np.arange(len(rows)), np.zeros(len(rows))
    marks: dict[str, Any] = {}
    rows = within_bounds(rows).assign(all_not_attributed=rows["not_attributed"] / rows["questions"])
    for number, (name, (label, colour, hatch)) in enumerate(PARTS.items()):
        colour = COLOURS[colour % len(COLOURS)] if isinstance(colour, int) else colour
        width = np.nan_to_num(100 * rows[f"all_{name}"].to_numpy(dtype=float)).clip(min=0)
        if name == "not_attributed" and not width.any():
            continue
        marks[label] = axes.barh(
            places, width, left=start, color=colour, hatch=hatch, edgecolor="black", linewidth=0.5, height=0.55
        )
        if f"all_{name}_low" in rows:
            low, high = (100 * rows[f"all_{name}_{end}"].to_numpy(dtype=float).clip(min=0) for end in ("low", "high"))
            above = places - 0.34 - 0.06 * number
            axes.hlines(above, start + low, start + high, color="grey" if colour == "white" else colour, linewidth=1.5)
        start = start + width
    axes.set_yticks(places, rows["category"], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.75)
    axes.tick_params(axis="x", labelsize=8)
    return marks


def within_bounds(rows: pd.DataFrame) -> pd.DataFrame:
    """Shares as bars can show them: what is known lies between 0 and 1, and after the connector not above before it."""
    part = (rows["wrong"] - rows["not_attributed"]) / rows["questions"]
    before = (1 - rows["lost_before"]).clip(0, 1)
    after = rows["not_used"].clip(0, 1).clip(upper=before)
    shares = {"lost_before": 1 - before, "lost_at_connector": before - after, "not_used": after}
    bars = {f"all_{name}": share * part for name, share in shares.items()}
    return rows.assign(**bars, all_unread=rows["all_unread"].clip(0, rows["model_accuracy"]))
