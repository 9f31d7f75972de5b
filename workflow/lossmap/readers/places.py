"""Where each embedding lies on its image, in numbers that a reader is given beside it."""

import numpy as np

from lossmap.store.images import Images
from lossmap.store.layouts import Layout

OCTAVES = 4  # of waves across an image: the finest tells sixteenths of it apart
WAVES = 8  # of an embedding's number, where it has no place
PLACES = 4 * OCTAVES + 2 + 1 + 2 * WAVES


def relative_boxes(images: Images, side: str, image: int) -> np.ndarray:
    """(rows, 4) of pre's or post's rows of one image, as shares of its width and height; NaN where a row has none."""
    shape = images.shape(image)
    if "size" in images.dataset:
        layout = images.layout(image)
    else:  # of `from_arrays`: nothing is known of the image, but how its patches lie
        boxes = tuple((0.0, 0.0, float(view.cols), float(view.rows)) for view in shape.views)
        layout = Layout(shape.views[0].cols, shape.views[0].rows, shape, boxes)
    found = layout.patch_boxes if side == "pre" else layout.token_boxes
    return found / [layout.width, layout.height, layout.width, layout.height]


def encoded(boxes: np.ndarray) -> np.ndarray:
    """(rows, PLACES) float32 of boxes (rows, 4), shares of the image: left, top, right, bottom; NaN: it has none.

    A row with a place has waves of its box's centre, in widths and heights of the image, and how large the box is, so
    that a tile's tokens and those of the whole differ; one without (queries, line ends) its number among those without.
    """
    found = np.zeros((len(boxes), PLACES), np.float32)
    placed = ~np.isnan(boxes).any(axis=1)
    left, top, right, bottom = boxes[placed].T
    centre = np.stack([left + right, top + bottom], axis=1) / 2
    angles = (np.pi * centre[:, :, None] * 2.0 ** np.arange(OCTAVES)).reshape(len(centre), 2 * OCTAVES)
    size = np.log2(np.stack([right - left, bottom - top], axis=1)) / 4
    found[placed, : 4 * OCTAVES + 2] = np.concatenate([np.sin(angles), np.cos(angles), size], axis=1)
    number = np.arange((~placed).sum())[:, None] * 2.0 ** -np.arange(WAVES)
    found[~placed, 4 * OCTAVES + 2 :] = np.concatenate(
        [np.ones((len(number), 1)), np.sin(number), np.cos(number)], axis=1
    )
    return found
