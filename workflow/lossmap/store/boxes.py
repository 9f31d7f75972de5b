"""Where each patch and each token of a ragged Dataset lies on its image."""

import numpy as np
import xarray as xr
from xarray.core import indexing

from lossmap.store.layouts import Shape, patch_boxes
from lossmap.store.rows import ByImage

EDGES = 4  # of a box: left, top, right, bottom
DTYPE = np.dtype("float32")
# Bytes of a patch and a token on the way: boxes are computed in float64, and those of all patches of a token at once.
ROW_BYTES = 128, 64


def with_ragged_boxes(embeddings: xr.Dataset) -> xr.Dataset:
    """A ragged Dataset with patch_box (patch, edge) and token_box (token, edge), float32, in pixels of the upright
    original image; NaN where a row has no place. They are computed when they are read, for the images that the rows
    asked for belong to.
    """
    views = _Views(embeddings)

    def boxes(axis: str, compute) -> tuple:
        array = ByImage(embeddings, axis, embeddings.sizes[axis], EDGES, DTYPE, ROW_BYTES, compute)
        return (axis, "edge"), indexing.LazilyIndexedArray(array)

    found = embeddings.assign(patch_box=boxes("patch", views.patches), token_box=boxes("token", views.tokens))
    found.encoding = embeddings.encoding  # assign drops where it came from
    return found


class _Views:
    """Boxes of images of one shape. They are few bytes, beside embeddings: those of all views are read at once."""

    def __init__(self, embeddings: xr.Dataset):
        self.embeddings = embeddings
        self.boxes: np.ndarray | None = None
        self.starts: np.ndarray | None = None

    def patches(self, images: np.ndarray, shape: Shape) -> np.ndarray:
        """(images, patches, 4)."""
        if self.boxes is None or self.starts is None:
            self.starts, self.boxes = self.embeddings["view_offset"].values, self.embeddings["view_box"].values
        found = np.full((len(images), shape.patches, EDGES), np.nan, DTYPE)
        for number, (view, start) in enumerate(zip(shape.views, shape.starts, strict=True)):
            cut = patch_boxes(self.boxes[self.starts[images] + number], (view.rows, view.cols))
            found[:, start : start + view.rows * view.cols] = cut.reshape(len(images), -1, EDGES)
        return found

    def tokens(self, images: np.ndarray, shape: Shape) -> np.ndarray:
        """(images, tokens, 4): what the patches of each token cover."""
        found = np.full((len(images), shape.tokens, EDGES), np.nan, DTYPE)
        tokens, patches = shape.blocks
        if len(tokens):
            boxes = self.patches(images, shape)[:, patches]
            found[:, tokens, :2], found[:, tokens, 2:] = boxes[..., :2].min(2), boxes[..., 2:].max(2)
        return found
