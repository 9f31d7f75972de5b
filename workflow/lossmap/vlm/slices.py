"""MiniCPM-V's way of cutting images: the whole image in its own shape, then slices of it, all packed in one row."""

import math
from dataclasses import dataclass
from typing import Any

from lossmap.vlm.views import Cut, Size, Tiling, grid_of_tiles, stretched


@dataclass(frozen=True)
class Slices(Tiling):
    """The whole image, scaled to about side x side pixels, its sides multiples of a token's; before that, where it has
    more pixels, it is cut into a grid of equal slices, each scaled likewise, which follow the whole.

    side: the root of a view's pixels. most: slices.
    """

    side: int
    most: int

    def asked(self) -> dict[str, Any]:
        return {"slice_mode": True, "max_slice_nums": self.most}

    def cuts(self, width: int, height: int) -> list[Cut]:
        grid = self._grid(width, height)
        if grid is None:
            return [stretched(width, height, self._size(height, width, enlarged=True))]
        rows, cols = grid
        slice_of = _nearest(height, rows) / rows, _nearest(width, cols) / cols
        high, wide = self._size(*slice_of, enlarged=True)
        slices = grid_of_tiles(width, height, ((high * rows, wide * cols),), (high, wide))
        return [stretched(width, height, self._size(height, width, enlarged=False)), *slices]

    def _size(self, height: float, width: float, enlarged: bool) -> Size:
        """That a picture is resized to. enlarged: whether smaller ones are scaled up."""
        if height * width > self.side**2 or enlarged:
            aspect = width / height
            height = int(self.side / math.sqrt(aspect))
            width = int(height * aspect)
        unit = self.patch * self.merge
        return _nearest(height, unit), _nearest(width, unit)

    def _grid(self, width: int, height: int) -> tuple[int, int] | None:
        """Rows and columns of slices, in shape the nearest to the image; None where it isn't cut."""
        wanted = min(math.ceil(width * height / self.side**2), self.most)
        if wanted <= 1:
            return None
        best, least = (1, 1), math.inf
        for count in (wanted - 1, wanted, wanted + 1):
            if count == 1 or count > self.most:
                continue
            for rows in (rows for rows in range(1, count + 1) if count % rows == 0):
                cols = count // rows
                off = abs(math.log(width / height) - math.log(cols / rows))
                if off < least or (off == least and rows > best[0]):
                    best, least = (rows, cols), off
        return best


def _nearest(length: float, unit: int) -> int:
    """Multiple of a unit, one at least."""
    return max(round(length / unit) * unit, unit)
