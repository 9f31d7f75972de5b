"""Rows of an examples table -> the pictures that they are about."""

import numpy as np

from lossmap.data.images import load_image, load_mask
from lossmap.store.layouts import Layout
from lossmap.study.example_losses import layout_of


def picture(row) -> tuple[np.ndarray, np.ndarray | None, Layout]:
    """Image (height, width, 3) uint8, upright; answer mask (height, width) bool, or None; where its patches lie.

    row: of a table of step choose_examples. Raises: ImageError if a file is missing, damaged or another one than then.
    """
    image = np.asarray(load_image(row.path, row.sha256))
    mask = load_mask(row.mask_path) if isinstance(row.mask_path, str) else None
    return image, mask, layout_of(row)
