"""Rows of an examples table -> the pictures that they are about."""

import numpy as np

from lossmap.data.images import load_image, load_mask
from lossmap.vlm.geometry import ImageGeometry


def picture(row) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Image (height, width, 3) uint8, upright; answer mask (height, width) bool, or None; patch boxes (rows, cols, 4).

    row: of a table of step choose_examples. Raises: ImageError if a file is missing, damaged or another one than then.
    """
    image = np.asarray(load_image(row.path, row.sha256))
    mask = load_mask(row.mask_path) if isinstance(row.mask_path, str) else None
    geometry = ImageGeometry(int(row.width), int(row.height), tuple(row.box), *(int(side) for side in row.grid))
    return image, mask, geometry.boxes()
