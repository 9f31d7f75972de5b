"""How one image lies in a model's embeddings: the views that the vision tower is given, and the tokens made of them.

Coordinates are pixels of the original image, upright by its EXIF orientation: x to the right, y down, (0, 0) the top
left corner, so that pixel (column, row) = (3, 5) covers x 3 to 4, y 5 to 6. A box is left, top, right, bottom.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

KINDS = ("whole", "tile")  # of a view: of all that the model sees of an image, or of a part
Box = tuple[float, float, float, float]


class ViewShape(NamedTuple):
    """rows x cols patches, in raster order in pre after `extra` rows without a place (a class token)."""

    rows: int
    cols: int
    kind: str = "whole"
    extra: int = 0


class Span(NamedTuple):
    """A run of tokens in post: rows x cols, in raster order, each row followed by `newline` tokens without a place.

    The tokens stand for the patches of tiles[0] x tiles[1] views, from number `first` on: laid side by side in raster
    order, their patches are cut into blocks of merge x merge, and the span is the window of these blocks that begins
    `top` rows and `left` columns in. With cols 0, it is `rows` tokens without a place: queries, or a separator.
    """

    rows: int
    cols: int
    first: int = 0
    tiles: tuple[int, int] = (1, 1)
    merge: int = 1
    top: int = 0
    left: int = 0
    newline: int = 0

    @property
    def tokens(self) -> int:
        return self.rows * (self.cols + self.newline) if self.cols else self.rows


class Shape(NamedTuple):
    """What images of one layout have in common: all but their boxes."""

    views: tuple[ViewShape, ...]
    spans: tuple[Span, ...]

    @property
    def patches(self) -> int:
        """Rows of pre."""
        return sum(view.extra + view.rows * view.cols for view in self.views)

    @property
    def tokens(self) -> int:
        """Rows of post."""
        return sum(span.tokens for span in self.spans)

    @property
    def starts(self) -> list[int]:
        """Where each view's raster of patches begins among the rows of pre."""
        starts, row = [], 0
        for view in self.views:
            starts.append(row + view.extra)
            row += view.extra + view.rows * view.cols
        return starts

    @property
    def blocks(self) -> "Blocks":
        """Which patches each token stands for."""
        return _blocks(self)

    @property
    def targets(self) -> np.ndarray:
        """Rows of pre that can be reconstructed, in order: the patches that some token stands for, so that what was cut
        off after padding is left out; where no token has a place, all patches that have one."""
        return _targets(self)


class Blocks(NamedTuple):
    """tokens (t,): rows of post that have a place, in order. patches (t, g): rows of pre that each stands for, those of
    a block in raster order. A patch is in one block or, where no token is made of it, in none."""

    tokens: np.ndarray
    patches: np.ndarray


@dataclass(frozen=True)
class Layout:
    """Of one image.

    width, height: of the original. shape: its views and spans. boxes: of each view, what all its patches cover; reaches
    outside the image where the model pads.
    """

    width: int
    height: int
    shape: Shape
    boxes: tuple[Box, ...]

    @cached_property
    def patch_boxes(self) -> np.ndarray:
        """(patches, 4) float64; NaN for rows of pre without a place."""
        found = np.full((self.shape.patches, 4), np.nan)
        for view, start, box in zip(self.shape.views, self.shape.starts, self.boxes, strict=True):
            cut = patch_boxes(np.array([box], dtype=np.float64), (view.rows, view.cols))[0]
            found[start : start + view.rows * view.cols] = cut.reshape(-1, 4)
        return found

    @cached_property
    def token_boxes(self) -> np.ndarray:
        """(tokens, 4) float64: what the patches of each token cover; NaN for tokens without a place."""
        found = np.full((self.shape.tokens, 4), np.nan)
        tokens, patches = self.shape.blocks
        if len(tokens):
            boxes = self.patch_boxes[patches]
            found[tokens] = np.concatenate([boxes[..., :2].min(1), boxes[..., 2:].max(1)], axis=1)
        return found

    def patch_of_pixel(self, x: int, y: int) -> list[int]:
        """Rows of pre whose patch holds the centre of the pixel in column x and row y: one for each view that shows it.

        Raises: IndexError if the image has no such pixel.
        """
        if not (0 <= x < self.width and 0 <= y < self.height):
            raise IndexError(f"pixel ({x}, {y}) is outside the image of {self.width} x {self.height}")
        found = []
        for view, start, (left, top, right, bottom) in zip(
            self.shape.views, self.shape.starts, self.boxes, strict=True
        ):
            col = int(np.floor((x + 0.5 - left) / (right - left) * view.cols))
            row = int(np.floor((y + 0.5 - top) / (bottom - top) * view.rows))
            if 0 <= row < view.rows and 0 <= col < view.cols:
                found.append(start + row * view.cols + col)
        return found


def one_view(
    pre_grid: Sequence[int],
    post_grid: Sequence[int] | None,
    patches: int | None = None,
    tokens: int | None = None,
    before: int = 0,
) -> Shape:
    """The shape of images that are seen in one view, as those of a square input.

    Parameters: pre_grid and post_grid, (rows, columns) of patches and of tokens, the latter None where tokens have no
        place; patches and tokens, rows of pre and of post: by default as many as the grids have. Patches beyond the
        grid come before it (a class token), and so do `before` of the tokens; others after it (a line end).
    """
    rows, cols = pre_grid
    extra = 0 if patches is None else patches - rows * cols
    views = (ViewShape(rows, cols, "whole", extra),)
    if post_grid is None:
        return Shape(views, (Span(tokens or 0, 0),))
    high, wide = post_grid
    spans: tuple[Span, ...] = (Span(high, wide, merge=max(1, rows // max(1, high))),)
    if before:
        spans = (Span(before, 0), *spans)
    after = 0 if tokens is None else tokens - before - high * wide
    return Shape(views, (*spans, Span(after, 0)) if after else spans)


def patch_boxes(boxes: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Boxes of what all patches of views cover, (n, 4), cut along a grid (rows, columns).

    Returns: (n, rows, columns, 4), of the same dtype, computed in float64.
    """
    rows, cols = grid
    left, top, right, bottom = boxes.astype(np.float64).T[..., None]
    x = left + (right - left) * np.arange(cols + 1) / cols
    y = top + (bottom - top) * np.arange(rows + 1) / rows
    cut = np.empty((len(boxes), rows, cols, 4), boxes.dtype)
    cut[..., 0], cut[..., 1] = x[:, None, :-1], y[:, :-1, None]
    cut[..., 2], cut[..., 3] = x[:, None, 1:], y[:, 1:, None]
    return cut


@lru_cache(maxsize=4096)
def _blocks(shape: Shape) -> Blocks:
    tokens, patches, token, width = [], [], 0, 1
    for span in shape.spans:
        if span.cols:
            m = span.merge
            window = joined(
                span, [_squares(view, start, m) for view, start in zip(shape.views, shape.starts, strict=True)]
            )
            line = np.arange(span.rows)[:, None] * (span.cols + span.newline) + np.arange(span.cols)
            tokens.append(token + line.ravel())
            patches.append(window.reshape(-1, m * m))
            width = m * m
        token += span.tokens
    if not tokens:
        return Blocks(np.empty(0, np.int64), np.empty((0, width), np.int64))
    return Blocks(np.concatenate(tokens), np.concatenate(patches))


@lru_cache(maxsize=4096)
def _targets(shape: Shape) -> np.ndarray:
    tokens, patches = shape.blocks
    if len(tokens):
        found = np.sort(patches, axis=None)
    else:
        views = zip(shape.views, shape.starts, strict=True)
        found = np.concatenate([start + np.arange(view.rows * view.cols) for view, start in views])
    found.flags.writeable = False  # one for all
    return found


def _squares(view: ViewShape, start: int, m: int) -> np.ndarray:
    """(rows, cols, m * m): rows of pre of a view's squares of m x m patches; patches beyond whole ones are in none."""
    rows, cols = view.rows // m, view.cols // m
    raster = start + np.arange(view.rows * view.cols).reshape(view.rows, view.cols)[: rows * m, : cols * m]
    return raster.reshape(rows, m, cols, m).transpose(0, 2, 1, 3).reshape(rows, cols, m * m)


def joined(span: Span, rasters: Sequence[np.ndarray]) -> np.ndarray:
    """A span's window of what its views hold, laid side by side.

    Parameters: rasters, of each view of the image, (rows, cols, ...), a cell for each token that could be made of it.
    Returns: (rows, cols, ...) of the span.
    Raises: IndexError if the image has no such views, ValueError if they don't fit beside each other.
    """
    high, wide = span.tiles
    lines = [[rasters[span.first + row * wide + col] for col in range(wide)] for row in range(high)]
    whole = np.concatenate([np.concatenate(line, axis=1) for line in lines], axis=0)
    return whole[span.top : span.top + span.rows, span.left : span.left + span.cols]
