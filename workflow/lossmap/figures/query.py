"""Figure 2: what the k-NN overlap ratio is, on one real query."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import ConnectionPatch

from lossmap.figures.style import KEPT, LOST


def neighbours_of_query(
    query: np.ndarray, before: list[np.ndarray], after: list[np.ndarray], ids: tuple[list[str], list[str]]
) -> plt.Figure:
    """The query, its nearest neighbours before the connector (upper row) and after it (lower row).

    Neighbours in both rows are framed in blue with solid lines and joined; those in one row only are framed in orange
    with dashed lines. query, before, after: images as arrays; ids: the neighbours' ids, nearest first, per row.
    """
    k = len(before)
    figure, axes = plt.subplots(
        2, k + 1, figsize=(1.05 * (k + 1) + 0.4, 3.1), gridspec_kw={"wspace": 0.12, "hspace": 0.45}
    )
    for row, (images, own, other) in enumerate(((before, *ids), (after, *ids[::-1]))):
        axes[row, 0].set_axis_off()
        for rank, (image, image_id) in enumerate(zip(images, own, strict=True)):
            _thumbnail(axes[row, rank + 1], image, image_id in other)
            axes[row, rank + 1].set_title(str(rank + 1), fontsize=8, pad=3)
    span = figure.add_subplot(axes[0, 0].get_gridspec()[:, 0])
    span.imshow(query)
    span.set(xticks=[], yticks=[])
    span.set_title("query", fontsize=9)
    for rank, image_id in enumerate(ids[0]):
        if image_id in ids[1]:
            lower = axes[1, ids[1].index(image_id) + 1]
            upper = axes[0, rank + 1]
            figure.add_artist(
                ConnectionPatch(
                    (0.5, -0.06), (0.5, 1.28), "axes fraction", "axes fraction", upper, lower, color=KEPT, lw=1.2
                )
            )
    kept = len(set(ids[0]) & set(ids[1]))
    for row, text in enumerate(("before the connector", "after the connector")):
        axes[row, 1].annotate(
            f"nearest {text}", (0, 1.22), xycoords="axes fraction", fontsize=9, ha="left", va="bottom"
        )
    figure.suptitle(
        f"{kept} of {k} neighbours are kept (blue, joined); {k - kept} are lost (orange, dashed): "
        f"overlap {kept}/{k} = {kept / k:.2f}",
        fontsize=9, y=1.04,
    )  # fmt: skip
    return figure


def _thumbnail(axes: plt.Axes, image: np.ndarray, kept: bool) -> None:
    axes.imshow(image)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=2.5, color=KEPT if kept else LOST, linestyle="-" if kept else (0, (2, 1)))
