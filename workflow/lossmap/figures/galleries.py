"""Figures 4 and 8 to 11: queries and their nearest images, before the connector over after it."""

import textwrap
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lossmap.figures.query import thumbnail
from lossmap.figures.style import KEPT, LOST

CELL = 0.82  # inches
LETTERS = 19  # that fit beside the thumbnails; six lines fit above the query


class Row(NamedTuple):
    """A query with its nearest images on both sides, nearest first. about: what stands above the query, line by line.
    hits: which images are framed as such."""

    about: list[str]
    query: np.ndarray
    before: list[np.ndarray]
    after: list[np.ndarray]
    hits_before: list[bool]
    hits_after: list[bool]


def gallery(rows: list[Row], title: str, legend: tuple[str, str]) -> Figure:
    """Two lines of thumbnails per query: nearest before, nearest after. Hits are framed in blue with solid lines,
    misses in orange with dashed ones. title: of the figure. legend: what a hit is, and what a miss is."""
    shown, text = len(rows[0].before), 2.2
    figure, axes = plt.subplots(
        2 * len(rows), shown + 1, figsize=(CELL * (shown + text), CELL * 2.1 * len(rows)), squeeze=False,
        gridspec_kw={"wspace": 0.08, "hspace": 0.08, "width_ratios": [text, *[1] * shown]},
    )  # fmt: skip
    for panel in axes.flat:
        panel.set_axis_off()
    for i, row in enumerate(rows):
        sides = ((row.before, row.hits_before, "before"), (row.after, row.hits_after, "after"))
        for line, (images, hits, side) in zip(axes[2 * i : 2 * i + 2], sides, strict=True):
            for panel, image, hit in zip(line[1:], images, hits, strict=True):
                panel.set_axis_on()
                thumbnail(panel, image, KEPT if hit else LOST)
            line[1].annotate(
                side, (-0.07, 0.5), xycoords="axes fraction", rotation=90, ha="right", va="center", fontsize=7
            )
        heading, query = axes[2 * i : 2 * i + 2, 0]
        about = "\n".join(line for part in row.about for line in textwrap.wrap(part, LETTERS))
        heading.annotate(about, (0, 0), xycoords="axes fraction", va="bottom", fontsize=7, linespacing=1.15)
        query.set_axis_on()
        query.set_anchor("W")
        thumbnail(query, row.query, "black")
    names = f"{legend[0]}: blue, solid     {legend[1]}: orange, dashed     query: black"
    figure.text(0.5, 0.895, f"{title}\n{names}", ha="center", va="bottom", fontsize=8, linespacing=1.5)
    return figure
