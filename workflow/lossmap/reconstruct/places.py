"""Where the patches and tokens of images of any shape lie, as reconstructors of ragged embeddings see it.

A place is a view's kind and the relative position of a centre within the view, (0, 0) its top left corner and (1, 1)
its bottom right one. Tables of numbers by place lie on a reference grid for each kind of view.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lossmap.errors import LossmapError
from lossmap.store.layouts import KINDS, Shape

Grid = tuple[int, int]  # rows, columns


class Centres(NamedTuple):
    """Of some rows: kind (m,), a number of `layouts.KINDS`; y and x (m,), relative position within the view."""

    kind: np.ndarray
    y: np.ndarray
    x: np.ndarray


class Places(NamedTuple):
    """Of images of one shape.

    targets (m,): rows of pre that are reconstructed, see `Shape.targets`. view (m,): which view each is of.
    centres: of the targets.
    order (m,): where each target lies among the patches of blocks, (t, g) flattened; without blocks 0, 1, ...
    tokens: the centres of the tokens that have a place, (t,).
    """

    targets: np.ndarray
    view: np.ndarray
    centres: Centres
    order: np.ndarray
    tokens: Centres


@lru_cache(maxsize=1024)
def places(shape: Shape) -> Places:
    kind, view = np.full(shape.patches, -1), np.full(shape.patches, -1)
    y, x = np.full(shape.patches, np.nan), np.full(shape.patches, np.nan)
    for number, (one, start) in enumerate(zip(shape.views, shape.starts, strict=True)):
        rows = slice(start, start + one.rows * one.cols)
        kind[rows], view[rows] = KINDS.index(one.kind), number
        y[rows] = np.repeat((np.arange(one.rows) + 0.5) / one.rows, one.cols)
        x[rows] = np.tile((np.arange(one.cols) + 0.5) / one.cols, one.rows)
    patches = shape.blocks.patches
    targets = shape.targets
    order = patches.ravel().argsort() if len(patches) else np.arange(len(targets))
    tokens = Centres(kind[patches[:, 0]], y[patches].mean(1), x[patches].mean(1)) if len(patches) else _NONE
    return Places(targets, view[targets], Centres(kind[targets], y[targets], x[targets]), order, tokens)


_NONE = Centres(np.empty(0, np.int64), np.empty(0), np.empty(0))


def cells(centres: Centres, grid: Grid) -> np.ndarray:
    """(m,) the cell of the reference grid that each centre falls in; kinds one after another, each in raster order."""
    (rows, cols), (kind, y, x) = grid, centres
    return (kind * rows + (y * rows).astype(np.int64)) * cols + (x * cols).astype(np.int64)


def corners(centres: Centres, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear interpolation between the centres of a reference grid's cells, which ends at the outermost of them.

    Returns: cells (m, 4), numbered as by `cells`, and their weights (m, 4), which sum to 1. Where a view has as many
        patches as the grid has cells, each has the weight 1 of its own cell.
    """
    (rows, cols), (kind, y, x) = grid, centres
    (top, low, down), (left, right, along) = _between(y, rows), _between(x, cols)
    cell = np.stack([(kind * rows + row) * cols + col for row in (top, low) for col in (left, right)], axis=1)
    weight = np.stack([a * b for a in (1 - down, down) for b in (1 - along, along)], axis=1)
    return cell, weight.astype(np.float32)


def _between(position: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cells on either side of a relative position, and how far it is from the first to the second."""
    at = np.clip(np.round(position * count - 0.5, 9), 0, count - 1)  # rounded: a centre on a centre is exactly there
    first = np.minimum(at.astype(np.int64), max(count - 2, 0))
    return first, np.minimum(first + 1, count - 1), at - first


@lru_cache(maxsize=1024)
def target_cells(shape: Shape, grid: Grid) -> np.ndarray:
    return cells(places(shape).centres, grid)


@lru_cache(maxsize=1024)
def target_corners(shape: Shape, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Of each target among the cells of its view's own grid: views one after another, not kinds."""
    found = places(shape)
    return corners(found.centres._replace(kind=found.view), grid)


@lru_cache(maxsize=1024)
def token_corners(shape: Shape, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Of all tokens (tokens, 4); those without a place have the whole weight of one more cell, after all others."""
    cell = np.zeros((shape.tokens, 4), dtype=np.int64)
    weight = np.zeros((shape.tokens, 4), dtype=np.float32)
    cell[:, 0], weight[:, 0] = len(KINDS) * grid[0] * grid[1], 1
    placed = shape.blocks.tokens
    cell[placed], weight[placed] = corners(places(shape).tokens, grid)
    return cell, weight


@lru_cache(maxsize=1024)
def resampling(count: int, cells: int) -> np.ndarray:
    """(cells, count) float32: values at count equal steps of a line -> at the centres of so many cells of it.

    Between two steps where cells are finer, the mean of those nearby where they are coarser; rows sum to 1.
    """
    at = (np.arange(cells) + 0.5) * count / cells - 0.5
    away = np.abs(at[:, None] - np.arange(count)) / max(1.0, count / cells)
    weight = np.maximum(0, 1 - np.round(away, 9))
    return (weight / weight.sum(1, keepdims=True)).astype(np.float32)


def tokens_per_view(shape: Shape) -> int:
    """Of images whose tokens have no place: how many are made of each view.

    Raises: LossmapError if it is not known which tokens are made of which view.
    """
    counts = {span.tokens for span in shape.spans}
    if len(shape.spans) != len(shape.views) or len(counts) != 1:
        raise LossmapError(
            f"Tokens without a place, {' + '.join(str(span.tokens) for span in shape.spans)} of {len(shape.views)}"
            f" views ({grids_of(shape)} patches): which are made of which view is not known, so that they can't be"
            " reconstructed from. See this model through square views (view: square)."
        )
    return counts.pop()


def grids_of(shape: Shape) -> str:
    """What messages call the views of an image."""
    return ", ".join(f"{view.rows} x {view.cols}" for view in shape.views)
