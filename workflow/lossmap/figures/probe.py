"""The patch probe: how much of each patch the connector sees, beside what was lost there."""

from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from lossmap.figures.patch_maps import draw_map, show_image

RESPONSE, LOSS = "viridis", "magma"
WIDTH, TEXT = 5.5, 7  # inches, points: to be read in print
BRIGHTEST = 0.98  # quantile of all patches; beyond it a patch is as bright as can be


class Probed(NamedTuple):
    """One image: itself (height, width, 3), boxes of its patches (rows, cols, 4), its maps (rows, cols), a title."""

    title: str
    image: np.ndarray
    boxes: np.ndarray
    maps: list[np.ndarray]


def probe_maps(groups: dict[str, list[Probed]], titles: list[str]) -> Figure:
    """A line per model: each of its images, followed by its maps, which titles name; a map called loss is a loss.

    One colour means one value in all maps of responses, and in all of losses.
    """
    width, images = len(titles) + 1, max(len(own) for own in groups.values())
    ratios = ([1] * width + [0.25]) * images
    panel = WIDTH / sum(ratios)
    figure, axes = plt.subplots(
        len(groups), len(ratios), figsize=(WIDTH, (1.25 * panel + 0.2) * len(groups) + 0.6), squeeze=False,
        gridspec_kw={"wspace": 0.06, "hspace": 0.1, "width_ratios": ratios, "bottom": 0.2},
    )  # fmt: skip
    for unused in axes.flat:
        unused.set_axis_off()
    kinds = [LOSS if title == "loss" else RESPONSE for title in titles]
    norms = {}
    for kind in dict.fromkeys(kinds):
        all_values = [
            values.ravel()
            for own in groups.values()
            for one in own
            for values, found in zip(one.maps, kinds, strict=True)
            if found == kind
        ]
        norms[kind] = Normalize(0, float(np.quantile(np.concatenate(all_values), BRIGHTEST)) or 1)
    for line, (model, own) in zip(axes, groups.items(), strict=True):
        line[0].annotate(
            model, (-0.15, 0.5), xycoords="axes fraction", rotation=90, ha="right", va="center", fontsize=TEXT
        )
        for i, one in enumerate(own):
            panels = line[i * (width + 1) : (i + 1) * (width + 1) - 1]
            for shown in panels:
                shown.set_axis_on()
                show_image(shown, one.image, one.boxes)
                shown.set_anchor("S")
            panels[0].set_title(one.title, fontsize=TEXT, pad=2)
            for shown, title, values, kind in zip(panels[1:], titles, one.maps, kinds, strict=True):
                draw_map(shown, values, one.boxes, kind, norms[kind])
                shown.set_title(title, fontsize=TEXT, pad=2)
    for i, (kind, norm) in enumerate(norms.items()):
        bar = figure.add_axes((0.2 + 0.4 * i, 0.1, 0.25, 0.02))
        figure.colorbar(ScalarMappable(norm, kind), cax=bar, orientation="horizontal", extend="max")
        bar.set_title("loss" if kind == LOSS else "response (1: a connector that only scales)", fontsize=TEXT, pad=2)
        bar.tick_params(labelsize=TEXT, length=2, pad=1)
    return figure
