"""The patch probe: how much of each patch the connector sees, beside what was lost there."""

from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from lossmap.figures.patch_maps import draw_map, loss_colours, seen_extent, show_image
from lossmap.store.layouts import Layout

RESPONSE, LOSS = "viridis", "magma"
TEXT = 7  # points: to be read in print, at this width
# Inches: of the page; between panels, images and rows; of a line of text; of what stands below all rows.
WIDTH, GAP, APART, LINE, BELOW = 5.5, 0.04, 0.2, 0.14, 0.55
TALLEST = 1.5  # of a row, as a multiple of a panel's width
BRIGHTEST = 0.98  # quantile of all patches; beyond it a patch is as bright as can be


class Probed(NamedTuple):
    """One image: itself (height, width, 3), its layout, its maps (patches,), by row of pre, NaN for none, a title."""

    title: str
    image: np.ndarray
    layout: Layout
    maps: list[np.ndarray]


def probe_maps(groups: dict[str, list[Probed]], titles: list[str]) -> Figure:
    """A row per model, under its name: each of its images, followed by its maps; a map called loss is a loss.

    titles: of the maps, over the first row. One colour means one value in all maps of responses, and in all of losses.
    """
    images, kinds = (
        max(len(own) for own in groups.values()),
        [LOSS if title == "loss" else RESPONSE for title in titles],
    )
    panel = (WIDTH - APART * (images - 1)) / (images * len(["image", *titles])) - GAP
    heights = [panel * min(TALLEST, max(map(_tallness, own))) for own in groups.values()]
    header = LINE * max(title.count("\n") + 1 for title in titles) + 0.05
    whole = header + sum(heights) + (2 * LINE + APART) * len(groups) + BELOW
    figure = plt.figure(figsize=(WIDTH, whole))

    def place(x: float, top: float, width: float, height: float) -> Axes:
        return figure.add_axes((x / WIDTH, 1 - (top + height) / whole, width / WIDTH, height / whole))

    def write(x: float, top: float, text: str, va: str = "top", **how) -> None:
        figure.text(x / WIDTH, 1 - top / whole, text, fontsize=TEXT, va=va, parse_math=False, **how)

    norms, top = _norms(groups, kinds), header
    for (model, own), height in zip(groups.items(), heights, strict=True):
        write(0, top, model, weight="bold")
        for i, one in enumerate(own):
            left = i * (WIDTH + APART) / images
            write(left, top + LINE, one.title)
            panels = [place(left + j * (panel + GAP), top + 2 * LINE, panel, height) for j in range(len(titles) + 1)]
            for shown in panels:
                show_image(shown, one.image, one.layout)
            for shown, values, kind in zip(panels[1:], one.maps, kinds, strict=True):
                draw_map(shown, values, one.layout, kind, norms[kind])
            if top == header:
                for j, title in enumerate(["image", *titles]):
                    write(left + j * (panel + GAP) + panel / 2, header - 0.05, title, "bottom", ha="center")
        top += 2 * LINE + height + APART
    for i, (kind, norm) in enumerate(norms.items()):
        bar = place((i + 0.15) * WIDTH / len(norms), top + LINE, 0.7 * WIDTH / len(norms), 0.07)
        figure.colorbar(ScalarMappable(norm, kind), cax=bar, orientation="horizontal", extend="max")
        bar.set_title("loss" if kind == LOSS else "response (1: a connector that only scales)", fontsize=TEXT, pad=2)
        bar.tick_params(labelsize=TEXT, length=2, pad=1)
    return figure


def _tallness(one: Probed) -> float:
    """Height over width of an image with all of what the model saw."""
    (height, width), (left, right, bottom, top) = one.image.shape[:2], seen_extent(one.layout)
    return (max(height, bottom) - min(0, top)) / (max(width, right) - min(0, left))


def _norms(groups: dict[str, list[Probed]], kinds: list[str]) -> dict[str, Normalize]:
    """Kind of map -> what its colours mean, from 0 up to all but the brightest patches."""
    each = [
        (kind, values[~np.isnan(values)])
        for own in groups.values()
        for one in own
        for kind, values in zip(kinds, one.maps, strict=True)
    ]
    found = {kind: np.concatenate([values for name, values in each if name == kind]) for kind in dict.fromkeys(kinds)}
    highest = {kind: np.quantile(values, BRIGHTEST) or 1 for kind, values in found.items()}
    return {kind: loss_colours(most) if kind == LOSS else Normalize(0, most) for kind, most in highest.items()}
