"""Which pixels of the original image each patch saw."""

from dataclasses import dataclass

import numpy as np

from lossmap.store.layouts import patch_boxes


@dataclass(frozen=True)
class ImageGeometry:
    """Where a model's square input, cut into rows x cols patches, lies on one original image.

    Coordinates are pixels of the original image, upright by its EXIF orientation: x to the right, y down, (0, 0) the
    top left corner, so that pixel (column, row) = (3, 5) covers x 3 to 4, y 5 to 6.

    width, height: of the original image.
    box: left, top, right, bottom of what the patches cover; reaches outside the image where the model pads.
    rows, cols: the patch grid.
    """

    width: int
    height: int
    box: tuple[float, float, float, float]
    rows: int
    cols: int

    def boxes(self) -> np.ndarray:
        """(rows, cols, 4) float64: left, top, right, bottom of every patch."""
        return patch_boxes(np.array([self.box], dtype=np.float64), (self.rows, self.cols))[0]

    def patch_box(self, row: int, col: int) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of one patch. Raises: IndexError if the grid has no such patch."""
        if not (0 <= row < self.rows and 0 <= col < self.cols):
            raise IndexError(f"patch ({row}, {col}) is outside the grid of {self.rows} x {self.cols}")
        return tuple(self.boxes()[row, col].tolist())

    def patch_of_pixel(self, x: int, y: int) -> tuple[int, int] | None:
        """(row, col) of the patch that holds the centre of the pixel in column x and row y; None if cropped away.

        Raises: IndexError if the image has no such pixel.
        """
        if not (0 <= x < self.width and 0 <= y < self.height):
            raise IndexError(f"pixel ({x}, {y}) is outside the image of {self.width} x {self.height}")
        left, top, right, bottom = self.box
        col = int(np.floor((x + 0.5 - left) / (right - left) * self.cols))
        row = int(np.floor((y + 0.5 - top) / (bottom - top) * self.rows))
        return (row, col) if 0 <= row < self.rows and 0 <= col < self.cols else None
