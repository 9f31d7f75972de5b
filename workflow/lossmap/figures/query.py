"""Figure 2: what the k-NN overlap ratio is, on one real query."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

from lossmap.figures.style import KEPT, LOST


def neighbours_of_query(
    query: np.ndarray, before: list[np.ndarray], after: list[np.ndarray], ids: tuple[list[str], list[str]]
) -> Figure:
    """The query, its nearest neighbours before the connector (upper row) and after it (lower row).

    Neighbours in both rows are framed in blue with solid lines and joined; those in one row only are framed in orange
    with dashed lines. query, before, after: images as arrays; ids: the neighbours' ids, nearest first, per row.
    """
    k = len(before)
    figure, axes = plt.subplots(2, k + 1, figsize=(k + 1, 2.7), gridspec_kw={"wspace": 0.1, "hspace": 0.5})
    place: dict[str, Any] = {"xycoords": "axes fraction", "fontsize": 9}
    for row, (images, own, other) in enumerate(((before, *ids), (after, *ids[::-1]))):
        axes[row, 0].set_axis_off()
        for rank, (image, image_id) in enumerate(zip(images, own, strict=True)):
            thumbnail(axes[row, rank + 1], image, KEPT if image_id in other else LOST)
            # Between the rows, clear of the lines, which start from the middle.
            y, va = ((-0.05, "top"), (1.04, "bottom"))[row]
            axes[row, rank + 1].annotate(rank + 1, (0.02, y), va=va, **place)
    span = figure.add_subplot(axes[0, 0].get_gridspec()[:, 0])
    thumbnail(span, query, "black")
    span.annotate("query", (0, 1.08), va="bottom", **place)
    axes[0, 1].annotate("nearest before the connector, by Euclidean distance", (0, 1.1), va="bottom", **place)
    axes[1, 1].annotate("nearest after the connector", (0, -0.1), va="top", **place)
    for rank, image_id in enumerate(ids[0]):
        if image_id in ids[1]:
            upper, lower = axes[0, rank + 1], axes[1, ids[1].index(image_id) + 1]
            line = {"coordsA": "axes fraction", "coordsB": "axes fraction", "color": KEPT, "linewidth": 1.2}
            figure.add_artist(ConnectionPatch((0.5, -0.04), (0.5, 1.04), axesA=upper, axesB=lower, **line))
    kept = len(set(ids[0]) & set(ids[1]))
    figure.suptitle(
        f"kept (blue, joined): {kept} of {k}     lost (orange, dashed): {k - kept} of {k}     "
        f"overlap = {kept}/{k} = {kept / k:.2f}",
        fontsize=9,
        y=1.06,
    )
    return figure


def thumbnail(axes: Axes, image: np.ndarray, colour: str) -> None:
    """An image centred on a square, so that all frames are equal."""
    side = max(image.shape[:2])
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = ((side - length) // 2 for length in image.shape[:2])
    square[top : top + image.shape[0], left : left + image.shape[1]] = image
    axes.imshow(square)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=2.5, color=colour, capstyle="butt")
        spine.set_linestyle((0, (2, 1)) if colour == LOST else "-")
