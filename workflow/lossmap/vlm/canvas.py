"""Llama 3.2 Vision's way of cutting images: tiles of a canvas that the image fills along one side, each with a class
token."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from lossmap.store.layouts import Span, ViewShape
from lossmap.vlm.views import Cut, Size, Tiling


@dataclass(frozen=True)
class Canvas(Tiling):
    """Tiles of a canvas of rows x columns of them, of those that the image fits best; it lies top left there, black
    below it and to its right. Every tile's patches and tokens follow its class token.

    side: of a tile in pixels. most: tiles; the tower is given as many, those beyond the canvas empty.
    """

    extra: ClassVar[int] = 1

    side: int
    most: int

    def asked(self) -> dict[str, Any]:
        return {"max_image_tiles": self.most}

    def cuts(self, width: int, height: int) -> list[Cut]:
        rows, cols = self.grid(width, height)
        s, canvas = self.side, (rows * self.side, cols * self.side)
        kind = "whole" if rows * cols == 1 else "tile"
        return [
            Cut(
                *((0, 0, width, height), (fitted(width, height, canvas, s),), canvas, (0, 0)),
                (col * s, row * s, (col + 1) * s, (row + 1) * s),
                kind,
            )
            for row in range(rows)
            for col in range(cols)
        ]

    def spans(self, width: int, height: int, views: list[ViewShape]) -> list[Span]:
        pairs = [(Span(self.extra, 0, first=i), Span(view.rows, view.cols, first=i)) for i, view in enumerate(views)]
        return [span for pair in pairs for span in pair]

    def grid(self, width: int, height: int) -> Size:
        """Rows and columns of tiles: where the image fits in without being made smaller, it is enlarged least; else it
        is made smaller least. Of several such, the fewest tiles."""
        scale = {(rows, cols): min(rows * self.side / height, cols * self.side / width) for rows, cols in self._grids}
        enough = [one for one in scale.values() if one >= 1]
        best = min(enough) if enough else max(scale.values())
        return min((grid for grid in scale if scale[grid] == best), key=math.prod)

    def number(self, width: int, height: int) -> int:
        """Of an image's grid, by which the tower knows it."""
        return self._grids.index(self.grid(width, height)) + 1

    @cached_property
    def _grids(self) -> list[Size]:
        sides = range(1, self.most + 1)
        return [(rows, cols) for rows in sides for cols in sides if rows * cols <= self.most]


def fitted(width: int, height: int, canvas: Size, side: int) -> Size:
    """(height, width) of an image that is scaled, its shape kept, to the size that it has within side x side pixels at
    least and a canvas at most."""
    high, wide = (min(max(one, side), most) for one, most in zip((height, width), canvas, strict=True))
    down, across = high / height, wide / width
    if across < down:
        return min(math.floor(height * across) or 1, high), wide
    return high, min(math.floor(width * down) or 1, wide)
