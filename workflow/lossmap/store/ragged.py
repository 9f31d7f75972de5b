"""Ragged embeddings in memory: some images of a Dataset, and layouts of any tool's arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from lossmap.errors import LossmapError
from lossmap.store.images import is_ragged, spread
from lossmap.store.layouts import Layout, Shape, Span, ViewShape

ROWS = ("patch", "token", "view", "span")  # axes along which a ragged Dataset holds its images one after another


def select_images(dataset: xr.Dataset, images: Sequence[int] | np.ndarray) -> xr.Dataset:
    """Some images of a Dataset of embeddings, in the order asked, whether or not images differ in layout.

    Parameters: dataset, of `embed`, `open_embeddings` or `from_arrays`; images, their numbers.
    Returns: a Dataset of these images. Nothing is read before it is used.
    Raises: IndexError if an image is not there.
    """
    images = np.asarray(images, dtype=np.int64)
    if not is_ragged(dataset):
        return dataset.isel(image=images)
    chosen: dict[str, np.ndarray] = {"image": images}
    offsets = {}
    for axis in ROWS:
        bounds = dataset[f"{axis}_offset"].values
        lengths = bounds[images + 1] - bounds[images]
        chosen[axis] = spread(bounds[images], lengths)
        offsets[f"{axis}_offset"] = "bound", np.concatenate([[0], np.cumsum(lengths)])
    found = dataset.drop_vars(list(offsets)).isel(chosen).assign(offsets)
    found.encoding = dataset.encoding  # assign drops where it came from
    return found


def layouts_of(pre: Any, post: Any) -> list[Layout] | None:
    """Layouts of images given as lists of arrays, one for each image, (rows, d) or (row, col, d): a grid of them.

    Where all tokens come as grids, each stands for a square of patches; where every image has as many tokens as
    patches, for one each. Of an image itself nothing is known: it is as large as its grid, a pixel for a patch.
    Returns: None where these are no such lists, as where all images are alike, or nothing says which patches a token
        stands for.
    Raises: LossmapError if a grid of patches can't be cut into a square for each token.
    """
    if not (isinstance(pre, list | tuple) and isinstance(post, list | tuple) and len(pre) == len(post)):
        return None
    shapes = [[np.shape(one) for one in side if hasattr(one, "shape")] for side in (pre, post)]
    if any(len(side) != len(pre) or {len(shape) for shape in side} - {2, 3} for side in shapes):
        return None
    if not any(len(set(side)) > 1 or len(side[0]) == 3 for side in shapes if side):
        return None
    grids = [shape[:2] if len(shape) == 3 else (1, shape[0]) for shape in shapes[0]]
    if all(len(shape) == 3 for shape in shapes[1]):
        tokens = [shape[:2] for shape in shapes[1]]
    elif all(int(np.prod(a[:-1])) == int(np.prod(b[:-1])) for a, b in zip(*shapes, strict=True)):
        tokens = grids
    else:
        return None
    layouts = []
    for number, (grid, cut) in enumerate(zip(grids, tokens, strict=True)):
        merge = grid[0] // cut[0] if cut[0] else 0
        if merge < 1 or (cut[0] * merge, cut[1] * merge) != grid:
            raise LossmapError(
                f"item {number}: {grid[0]} x {grid[1]} patches can't be cut into squares, one for each of"
                f" {cut[0]} x {cut[1]} tokens. Give layouts=, which say what each token stands for."
            )
        shape = Shape((ViewShape(grid[0], grid[1]),), (Span(cut[0], cut[1], merge=merge),))
        layouts.append(Layout(grid[1], grid[0], shape, ((0.0, 0.0, float(grid[1]), float(grid[0])),)))
    return layouts
