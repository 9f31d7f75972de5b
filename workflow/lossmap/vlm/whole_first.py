"""Ovis2's way of cutting images: the whole image, then tiles, no more of them than keep most of its pixels."""

import math
from dataclasses import dataclass
from typing import Any

from lossmap.vlm.views import Cut, Tiles

COVERED = 0.9  # of an image's pixels, by the tiles that Ovis2 is content with


@dataclass(frozen=True)
class WholeFirst(Tiles):
    """As `Tiles`, with the whole image before its tiles (Ovis2).

    covering: whether the grid is the smallest whose tiles keep most of the image's pixels, rather than that of the
        nearest shape.
    """

    covering: bool

    def asked(self) -> dict[str, Any]:
        return super().asked() | {"use_covering_area_grid": self.covering}

    def cuts(self, width: int, height: int) -> list[Cut]:
        *tiles, whole = super().cuts(width, height)
        return [whole, *tiles]

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        """Of grids whose tiles keep more than COVERED of the image's pixels, one of the fewest tiles; of these, and
        where no grid does, that which keeps most. Its processor then takes rows for columns."""
        if not self.covering:
            return super()._grid(width, height)
        numbers = range(1, self.most + 1)
        grids = sorted(((r, c) for r in numbers for c in numbers if r * c <= self.most), key=math.prod)
        kept = {grid: self._kept(width, height, *grid) for grid in grids}
        enough = [grid for grid in grids if kept[grid] > COVERED]
        if enough:
            return min(enough, key=lambda grid: (math.prod(grid), -kept[grid]))
        return min(grids, key=lambda grid: (-kept[grid], math.prod(grid)))

    def _kept(self, width: int, height: int, rows: int, cols: int) -> float:
        """Pixels of an image that are left where tiles are scaled to `size` along their longer edge, as a share."""
        high, wide = height // rows, width // cols
        total: float = 0
        for row in range(rows):
            for col in range(cols):
                edges = (
                    width - col * wide if col == cols - 1 else wide,
                    height - row * high if row == rows - 1 else high,
                )
                longer, shorter = max(edges), min(edges)
                total += (
                    longer * shorter if longer <= self.size[0] else self.size[0] * (shorter / longer * self.size[0])
                )
        return total / (width * height)
