"""Values of an image's patches as maps: each view's where it lies on the original image, and the finest of them all."""

from typing import NamedTuple

import numpy as np

from lossmap.store.layouts import Box, Layout, Shape


class ViewMap(NamedTuple):
    """What one view shows. box: of all its patches, in pixels of the original image. kind: of `layouts.KINDS`. values
    (..., rows, cols): NaN where a patch has none."""

    box: Box
    kind: str
    values: np.ndarray


class Places(NamedTuple):
    """Patches that have a place, in the order of pre: which row of pre each is, which view it belongs to, and its row
    and column there."""

    patch: np.ndarray
    view: np.ndarray
    row: np.ndarray
    col: np.ndarray


class Finest(NamedTuple):
    """Which patch a map of all views shows where. patches (y - 1, x - 1): the row of pre between two edges x and two
    edges y, pixels of the original image; -1 for none."""

    x: np.ndarray
    y: np.ndarray
    patches: np.ndarray


def places(shape: Shape) -> Places:
    """Where on its views each patch of images of a shape lies; rows of pre without a place are left out."""
    found = [np.empty((4, 0), np.int64)]
    for number, (view, start) in enumerate(zip(shape.views, shape.starts, strict=True)):
        row, col = (place.ravel() for place in np.indices((view.rows, view.cols)))
        found.append(np.stack([start + np.arange(len(row)), np.full_like(row, number), row, col]))
    return Places(*np.concatenate(found, axis=1))


def view_maps(layout: Layout, values: np.ndarray) -> list[ViewMap]:
    """Values (..., patches), by row of pre, as a map of each view."""
    maps = []
    for view, start, box in zip(layout.shape.views, layout.shape.starts, layout.boxes, strict=True):
        own = values[..., start : start + view.rows * view.cols]
        maps.append(ViewMap(box, view.kind, own.reshape(*values.shape[:-1], view.rows, view.cols)))
    return maps


def finest(layout: Layout, shown: np.ndarray | None = None) -> Finest:
    """The default map of an image: where several views see a place, it shows the one whose patches are the smallest, in
    pixels of the original image: a tile before the whole view; of equal ones the first. Where no tile has a patch to
    show, the whole view shows through.

    shown (patches,) bool: which patches have something to show; by default all.
    """
    views = list(zip(layout.shape.views, layout.shape.starts, layout.boxes, strict=True))
    cuts = [
        (np.linspace(left, right, view.cols + 1), np.linspace(top, bottom, view.rows + 1))
        for view, _, (left, top, right, bottom) in views
    ]
    x, y = (np.unique(np.concatenate(edges)) for edges in zip(*cuts, strict=True))
    found = np.full((len(y) - 1, len(x) - 1), -1)
    areas = [(across[1] - across[0]) * (down[1] - down[0]) for across, down in cuts]
    for i in sorted(range(len(views)), key=areas.__getitem__)[::-1]:  # what is drawn last is seen
        (view, start, _), (across, down) = views[i], cuts[i]
        col = np.searchsorted(across, (x[:-1] + x[1:]) / 2) - 1
        row = np.searchsorted(down, (y[:-1] + y[1:]) / 2) - 1
        inside = ((row >= 0) & (row < view.rows))[:, None] & ((col >= 0) & (col < view.cols))
        patch = np.where(inside, start + row[:, None] * view.cols + col, -1)
        if shown is not None:
            inside &= shown[patch]
        found[inside] = patch[inside]
    return Finest(x, y, found)


def visible(layout: Layout, values: np.ndarray) -> np.ndarray:
    """Values (patches,) of the patches whose middle the finest map shows; NaN for others."""
    if len(layout.shape.views) == 1:
        return values
    shown = finest(layout, ~np.isnan(values))
    own = np.flatnonzero(~np.isnan(values))
    boxes = layout.patch_boxes[own]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    col, row = (np.searchsorted(edges, middle[:, i]) - 1 for i, edges in enumerate((shown.x, shown.y)))
    seen = own[shown.patches[row, col] == own]
    found = np.full(len(values), np.nan, np.result_type(values, np.float32))
    found[seen] = values[seen]
    return found
