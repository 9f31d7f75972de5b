"""Figures 1, 7 and 12, loss maps: which patches were lost, on the images themselves.

A picture here is a tuple: image (height, width, 3) uint8; mask (height, width) bool, or None; the image's `Layout`. Of
several views, the map that is drawn is the finest (`store.maps.finest`). Values (patches,) are by row of pre, NaN where
a patch has none.
"""

import textwrap
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from lossmap.data.images import Picture, as_image
from lossmap.errors import LossmapError
from lossmap.store.layouts import Layout, one_view
from lossmap.store.maps import Finest, finest
from lossmap.store.patch_losses import ImageLosses

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import ArrayLike

SIGNED = "RdBu"  # blue: the original is larger
UNSIGNED = "magma"  # both change in lightness too, so that they are read by every colour vision and in grey print
NUMBERS = "#ffe600"
# Inches: a page as wide as a paper's text, so that type is printed at the size that it has here.
PAGE, PANEL, SMALL_PANEL, GAP, BAR, BAR_AND_LABEL = 5.5, 1.45, 1.2, 0.05, 0.09, 0.68
POINTS = 7
NUMBER = 7
REFERENCES = 3  # shown beside a caption
Limits = tuple[tuple[float, float], tuple[float, float]]
LETTER, LINE = 0.05, 0.127  # inches that a letter and a line take at this size


def draw_answers(examples: pd.DataFrame, pictures: list[tuple], worst: list[np.ndarray]) -> Figure:
    """One row per example: image with grid and answer mask, signed differences of norms, both with numbered patches.

    examples: columns which ("highest" or "lowest"), outcome, rank, of, question, prediction, references, score, scored
    (the score's name), loss (squared error in the patches with the answer, by which they are ranked), other_loss (in
    the others), norm_difference (patches,). worst: for each, the raster numbers of the patches to number, in order:
    those of largest absolute difference. One colour means one value in all rows.
    """
    values = [np.asarray(part) for part in examples["norm_difference"]]
    limit = max(np.nanmax(np.abs(part)) for part in values) or 1
    norm = Normalize(-limit, limit)
    texts: list[tuple[str, ...]] = [
        (
            f"{row.outcome.capitalize()} answer, {row.which} squared error",
            f"rank {row.rank} of {row.of} ranked {row.outcome} answers",
            f"Question: {row.question}",
            f"Model: {row.prediction or '(nothing)'}; {row.scored}: {row.score:.2g}",
            f"People: {_counted(row.references)}",
            f"Squared error: {row.loss:.3f} in the answer's patches (ranked by this), "
            f"{shown(row.other_loss)} in the others",
        )
        for row in examples.itertuples()
    ]
    figure, panels, (bar,) = _layout(texts, 3, [len(texts)], below=True)
    for (plain, difference, both), part, chosen, (image, mask, layout) in zip(
        panels, values, worst, pictures, strict=True
    ):
        for axes in (plain, difference, both):
            show_image(axes, image, layout)
            if mask is not None:
                draw_outline(axes, mask)
        draw_grid(plain, layout, ~np.isnan(part))
        draw_map(difference, part, layout, SIGNED, norm)
        draw_map(both, part, layout, SIGNED, norm, alpha=0.85 * np.sqrt(np.abs(part) / limit))
        draw_numbers(both, chosen, layout)
    largest = {1: "largest", 10: "ten largest"}.get(len(worst[0]), f"{len(worst[0])} largest")
    titles = ("image,\nanswer outlined", "signed difference\nof norms", f"{largest} absolute\ndifferences of norms")
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(title, fontsize=8)
    _colour_bar(bar, SIGNED, norm, "norm of patch minus norm of its reconstruction\n(blue: the original is larger)")
    return figure


def draw_captions(examples: pd.DataFrame, pictures: list[tuple]) -> Figure:
    """One row per example, models under one another: image, map of squared errors, generated caption, first references.

    examples: columns model (rows of one model together), which, rank, of, prediction, references, score, loss,
    squared_error (patches,). One colour means one value in all rows of a model.
    """
    texts: list[tuple[str, ...]] = [
        (
            f"{row.model}, {row.which} loss",
            f"rank {row.rank} of {row.of} images",
            f"Squared error {row.loss:.3f}, CIDEr {row.score:.1f}",
            f"Model: {row.prediction or '(nothing)'}",
            *(f"Person: {caption}" for caption in row.references[:REFERENCES]),
            *([f"({more} more)"] if (more := len(row.references) - REFERENCES) > 0 else []),
        )
        for row in examples.itertuples()
    ]
    return _maps(texts, examples, pictures)


def draw_loss_maps(examples: pd.DataFrame, pictures: list[tuple]) -> Figure:
    """One row per example, models under one another: image, map of squared errors, what the values range over.

    examples: columns model (rows of one model together), which, rank, n, image_id, loss, decoder, squared_error
    (patches,), whose range is that of all views. One colour means one value in all rows of a model.
    """
    texts: list[tuple[str, ...]] = [
        (
            f"{row.model}, {row.which} loss",
            f"rank {row.rank} of {row.n} images; loss {row.loss:.3f}",
            f"Image: {row.image_id}",
            f"Patches: {np.nanmin(row.squared_error):.3f} to {np.nanmax(row.squared_error):.3f}, median "
            f"{np.nanmedian(row.squared_error):.3f}",
            f"Decoded by {row.decoder}",
        )
        for row in examples.itertuples()
    ]
    return _maps(texts, examples, pictures)


def _maps(texts: list[tuple[str, ...]], examples: pd.DataFrame, pictures: list[tuple]) -> Figure:
    """One row per example: image, map of squared errors, text (see `_layout`); a colour bar per model."""
    values = [np.asarray(part) for part in examples["squared_error"]]
    groups = [len(group) for _, group in examples.groupby("model", sort=False)]
    figure, panels, bars = _layout(texts, 2, groups)
    first = 0
    for bar, size in zip(bars, groups, strict=True):
        rows = slice(first, first + size)
        norm = loss_colours(max(np.nanmax(part) for part in values[rows]))
        for (left, right), part, (image, _, layout) in zip(panels[rows], values[rows], pictures[rows], strict=True):
            for panel in (left, right):
                show_image(panel, image, layout)
            draw_map(right, part, layout, UNSIGNED, norm)
        _colour_bar(bar, UNSIGNED, norm, "squared error\n(1: what the mean predicts)")
        first += size
    for axes, title in zip(panels[0], ("image", "squared error"), strict=True):
        axes.set_title(title, fontsize=8)
    return figure


def loss_colours(highest: float) -> PowerNorm:
    """Colours follow the root of the error, or the lowest losses would all be black beside the highest."""
    return PowerNorm(0.5, 0, highest or 1)


def draw_patch_losses(
    image: Picture,
    losses: "xr.Dataset | ArrayLike",
    ax: Axes | None = None,
    *,
    highest: float | None = None,
    position: int | None = None,
) -> Axes:
    """What was lost of each patch of one image, over the image, with a colour bar; predicting the mean scores 1.

    Parameters: image, a path, a PIL image or an array (height, width, 3) uint8. losses, of `patch_losses`, of this
        image: losses.isel(image=i), whose squared_error is drawn; or of all images, with position; or an array (rows,
        columns), drawn over all of the image. ax: where; by default a new figure's. highest: the loss that the last
        colour means, so that several maps share their colours; by default this image's. position: of the image among
        those of losses; wanted where images differ in layout, of which several views may be seen: then the finest is
        drawn, tiles before the whole view.
    Returns: the axes. What the model did not see of the image is dimmed.
    Raises: LossmapError if losses are of more than one image, or the image can't be read.
    """
    pixels = np.asarray(as_image(image))
    found = cast("xr.Dataset", losses) if hasattr(losses, "data_vars") else None
    if found is not None and "patch_offset" in found:
        if position is None and found.sizes.get("image", 0) != 1:
            raise LossmapError("losses: are of images that differ in layout; say which one is drawn: position=0.")
        every = ImageLosses(found)
        values, layout = every.values("squared_error", position or 0), every.layout(position or 0)
    else:
        found = found if found is None or position is None else found.isel(image=position)
        values = np.asarray(cast("ArrayLike", losses) if found is None else found["squared_error"])
        if values.ndim != 2:
            raise LossmapError(
                f"losses: have the shape {values.shape}; wanted (rows, columns), those of one image: "
                "losses.isel(image=0)."
            )
        height, width = pixels.shape[:2]
        box: tuple[float, ...] = (0.0, 0.0, float(width), float(height))
        if found is not None and "patch_box" in found:
            boxes = found["patch_box"].values.astype(float)
            box = (*boxes[0, 0, :2].tolist(), *boxes[-1, -1, 2:].tolist())
        layout = Layout(width, height, one_view(values.shape, None), (cast("Any", box),))
        values = values.ravel()
    axes = plt.subplots(figsize=(3.6, 3), layout="constrained")[1] if ax is None else ax
    norm = loss_colours(np.nanmax(values) if highest is None else highest)
    show_image(axes, pixels, layout)
    draw_map(axes, values, layout, UNSIGNED, norm, alpha=0.75)
    axes.figure.colorbar(ScalarMappable(norm, UNSIGNED), ax=axes, label="squared error")
    return axes


def draw_sentence(text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = plt.figure(figsize=(PAGE, 0.6))
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=POINTS + 1)
    return figure


def shown(loss: float) -> str:
    """A loss in words: "none" where there is no patch to have one."""
    return "none" if np.isnan(loss) else f"{loss:.3f}"


def show_image(axes: Axes, image: np.ndarray, layout: Layout) -> None:
    """The image and all of what the model saw, in pixels of the image; what the model did not see is dimmed."""
    height, width = image.shape[:2]
    left, right, bottom, top = seen_extent(layout)
    axes.imshow(image, extent=(0, width, height, 0))
    x, y = (min(0, left), max(width, right)), (max(height, bottom), min(0, top))
    for x0, x1, y0, y1 in ((x[0], left, *y), (right, x[1], *y), (left, right, y[1], top), (left, right, bottom, y[0])):
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, color="white", alpha=0.7, linewidth=0))
    if len(layout.boxes) > 1:  # between views, too, there may be what none of them saw
        for x0, x1, y0, y1 in _unseen(finest(layout)):
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, color="white", alpha=0.7, linewidth=0))
    axes.set(xlim=x, ylim=y, xticks=[], yticks=[], aspect="equal", anchor="N")
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.5)


def _unseen(map_: Finest) -> Iterator[tuple[float, float, float, float]]:
    """Left, right, top, bottom of rectangles that make up what no view shows."""
    for row, (top, bottom) in zip(map_.patches < 0, pairwise(map_.y), strict=True):
        ends = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]])))
        for first, last in zip(ends[::2], ends[1::2], strict=True):
            yield map_.x[first], map_.x[last], top, bottom


def draw_grid(axes: Axes, layout: Layout, shown: np.ndarray | None = None) -> None:
    """The borders of the patches. shown (patches,) bool: those that the map shows; by default all."""
    width = min(0.5, 0.06 * _smallest(layout) / _pixels_per_point(axes))
    style: dict[str, Any] = {"colors": "white", "linewidth": width, "alpha": 0.6}
    if len(layout.boxes) == 1:
        left, right, bottom, top = seen_extent(layout)
        boxes = _boxes(layout)
        axes.vlines([*boxes[0, :, 0], right], top, bottom, **style)
        axes.hlines([*boxes[:, 0, 1], bottom], left, right, **style)
        return
    map_ = finest(layout, shown)
    patches = np.pad(map_.patches, 1, constant_values=-1)
    lines = []
    for i, j in np.argwhere(patches[1:-1, :-1] != patches[1:-1, 1:]):
        lines.append([(map_.x[j], map_.y[i]), (map_.x[j], map_.y[i + 1])])
    for i, j in np.argwhere(patches[:-1, 1:-1] != patches[1:, 1:-1]):
        lines.append([(map_.x[j], map_.y[i]), (map_.x[j + 1], map_.y[i])])
    axes.add_collection(LineCollection(lines, **style), autolim=False)


def draw_map(
    axes: Axes,
    values: np.ndarray,
    layout: Layout,
    colours: str,
    norm: Normalize,
    alpha: float | np.ndarray = 1.0,
) -> None:
    """A value per patch, where the patch lies on the image; of several views, the finest.

    Parameters: values (patches,), NaN for none; alpha, of all or of each patch.
    """
    if len(layout.boxes) == 1:
        view, (start,) = layout.shape.views[0], layout.shape.starts
        raster = slice(start, start + view.rows * view.cols)
        if isinstance(alpha, np.ndarray):
            alpha = alpha[raster].reshape(view.rows, view.cols)
        shown = values[raster].reshape(view.rows, view.cols)
        extent = seen_extent(layout)
        axes.imshow(shown, cmap=colours, norm=norm, extent=extent, alpha=alpha, interpolation="nearest", zorder=1.5)
        return
    map_ = finest(layout, ~np.isnan(values))
    painted = plt.colormaps[colours](norm(np.ma.masked_invalid(values)))
    painted[:, 3] = np.where(np.isnan(values), 0, alpha)
    painted = np.where(map_.patches[..., None] < 0, 0, painted[map_.patches])
    axes.pcolorfast(map_.x, map_.y, painted, zorder=1.5)


def draw_outline(axes: Axes, mask: np.ndarray) -> None:
    """The border of a mask, dark on light, so that it shows on any ground. mask: (height, width) bool."""
    closed = np.pad(mask.astype(float), 1)  # so that the border is closed where the mask meets the image's edge
    y, x = (np.arange(length) - 0.5 for length in closed.shape)
    for colour, width in (("black", 2.2), ("white", 0.9)):
        axes.contour(x, y, closed, levels=[0.5], colors=colour, linewidths=width, zorder=2)


def draw_numbers(axes: Axes, patches: np.ndarray, layout: Layout) -> None:
    """Frames and numbers, 1 for the first, on patches given by their rows in pre.

    Where patches are smaller than numbers, the numbers stand beside them, and lines lead to them.
    """
    chosen = layout.patch_boxes[patches]
    middles = (chosen[:, :2] + chosen[:, 2:]) / 2
    limits = axes.get_xlim(), axes.get_ylim()[::-1]
    gap = 1.25 * NUMBER * _pixels_per_point(axes)
    small = (chosen[:, 2:] - chosen[:, :2]).min() < gap
    places = move_apart(middles, gap, limits, middles) if small else middles
    for colour, width in (("black", 1.8), (NUMBERS, 0.8)):
        for (left, top, right, bottom), middle, place in zip(chosen, middles, places, strict=True):
            frame = Rectangle((left, top), right - left, bottom - top, fill=False, joinstyle="miter", zorder=3)
            frame.set(edgecolor=colour, linewidth=width)
            axes.add_patch(frame)
            axes.plot(*np.stack([middle, place]).T, color=colour, linewidth=width, zorder=3, scalex=False, scaley=False)
    for number, place in enumerate(places, start=1):
        axes.text(
            place[0], place[1], str(number), color=NUMBERS, fontsize=NUMBER, fontweight="bold", ha="center",
            va="center_baseline", zorder=4, path_effects=[withStroke(linewidth=1.8, foreground="black")],
        )  # fmt: skip


def move_apart(points: np.ndarray, gap: float, limits: Limits, obstacles: np.ndarray | None = None) -> np.ndarray:
    """Points (n, 2) moved until any two, and all obstacles (m, 2), are `gap` apart, as far as there is room.

    limits: (least, most) x, (least, most) y; points stay half a gap inside them.
    """
    low, high = np.array(limits, float).T
    low, high = low + gap / 2, high - gap / 2
    # Nothing is drawn at random: points at one place leave it in the directions of a clock.
    angle = 2 * np.pi * np.arange(len(points)) / len(points)
    places = np.clip(points, low, high) + 1e-3 * gap * np.stack([np.sin(angle), -np.cos(angle)], axis=1)
    own = np.eye(len(points), len(points) + (0 if obstacles is None else len(obstacles)), dtype=bool)
    for _ in range(300):
        others = places if obstacles is None else np.concatenate([places, obstacles])
        away = places[:, None] - others
        distance = np.maximum(np.linalg.norm(away, axis=-1), 1e-9)
        push = np.where(own | (distance >= gap), 0, (gap - distance) / distance)
        if not push.any():
            break
        places = np.clip(places + 0.5 * (push[..., None] * away).sum(axis=1), low, high)
    return places


def _pixels_per_point(axes: Axes) -> float:
    """Pixels of the image in one typographic point of the panel."""
    return max(abs(np.diff(axes.get_xlim())[0]), abs(np.diff(axes.get_ylim())[0])) / (72 * PANEL)


def _layout(
    texts: list[tuple[str, ...]], panels: int, groups: list[int], below: bool = False
) -> tuple[Figure, list[list[Axes]], list[Axes]]:
    """A figure with a row per text: small panels and the text beside them, or panels and the text below them.

    texts: heading, line under it (or at its right), paragraphs. groups: how many rows share a colour bar. Returns:
    figure, panels by row, axes for a colour bar per group.
    """
    side = PANEL if below else SMALL_PANEL
    left = 0 if below else panels * (side + GAP) + BAR_AND_LABEL
    width = panels * (side + GAP) - GAP if below else PAGE - left
    letters = int(width / LETTER)
    wrapped = [
        [line for part in text[2:] for line in textwrap.wrap(part, letters, subsequent_indent="   ")] for text in texts
    ]
    written = [LINE * (len(lines) + (1.6 if below else 2.6)) for lines in wrapped]
    heights = [(side + GAP + high if below else max(side, high)) + 2 * GAP for high in written]
    # Pictures are shown at 300 dots per inch in print, too.
    figure = plt.figure(figsize=(PAGE, sum(heights)), dpi=300)

    def place(x: float, top: float, width: float, height: float) -> Axes:
        whole = sum(heights)
        return figure.add_axes((x / PAGE, 1 - (top + height) / whole, width / PAGE, height / whole))

    tops = np.cumsum([0, *heights])
    axes = [[place(i * (side + GAP), top, side, side) for i in range(panels)] for top in tops[:-1]]
    for top, high, text, lines in zip(tops, written, texts, wrapped, strict=False):
        beside = place(left, top + below * (side + GAP), width, high)
        _write(beside, text[0], text[1], lines, line=LINE / high, in_line=below)
    ends = np.cumsum([0, *groups])
    bars = [
        place(panels * (side + GAP), tops[first], BAR, tops[last - 1] - tops[first] + side)
        for first, last in pairwise(ends)
    ]
    return figure, axes, bars


def _write(axes: Axes, heading: str, under: str, lines: list[str], *, line: float, in_line: bool) -> None:
    """Text from the top down, as it is: a dollar sign starts no formula. line: the height of one, in axes."""
    axes.set_axis_off()
    plain: dict[str, Any] = {"transform": axes.transAxes, "va": "top", "parse_math": False}
    axes.text(0, 1, heading, fontsize=POINTS + 1, fontweight="bold", **plain)
    x, y, down = (1, 1, 1.4) if in_line else (0, 1 - 1.2 * line, 2.5)
    axes.text(x, y, under, fontsize=POINTS, color="0.3", ha="right" if in_line else "left", **plain)
    axes.text(0, 1 - down * line, "\n".join(lines), fontsize=POINTS, linespacing=1.25, **plain)


def seen_extent(layout: Layout) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of all patches, as imshow wants them."""
    boxes = layout.patch_boxes
    (left, top), (right, bottom) = np.nanmin(boxes[:, :2], axis=0), np.nanmax(boxes[:, 2:], axis=0)
    return left, right, bottom, top


def _boxes(layout: Layout) -> np.ndarray:
    """(rows, cols, 4): of the patches of the only view."""
    view, (start,) = layout.shape.views[0], layout.shape.starts
    return layout.patch_boxes[start : start + view.rows * view.cols].reshape(view.rows, view.cols, 4)


def _smallest(layout: Layout) -> float:
    """Width of the narrowest patch, in pixels of the image."""
    return min(
        (right - left) / view.cols for view, (left, _, right, _) in zip(layout.shape.views, layout.boxes, strict=True)
    )


def _counted(answers: Iterable[str]) -> str:
    """Each different answer with how often it was given, the most frequent first."""
    counts = pd.Series(list(answers)).value_counts(sort=False)
    counts = counts.sort_values(ascending=False, kind="stable")
    return ", ".join(f"{answer} ({count})" if count > 1 else str(answer) for answer, count in counts.items())


def _colour_bar(axes: Axes, colours: str, norm: Normalize, label: str) -> None:
    bar = axes.figure.colorbar(ScalarMappable(norm, colours), cax=axes)
    bar.ax.tick_params(labelsize=7, length=2, pad=1)
    bar.set_label(label, fontsize=7, labelpad=2)
    bar.outline.set_linewidth(0.5)
