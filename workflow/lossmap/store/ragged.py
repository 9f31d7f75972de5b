"""Ragged embeddings in memory: some images of a Dataset, those of any tool's arrays, and patch losses of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from lossmap.errors import LossmapError
from lossmap.store.images import LAYOUT_DIMENSIONS, RAGGED, is_ragged, spread
from lossmap.store.layouts import Shape, Span, ViewShape

ROWS = ("patch", "token", "view", "span")  # axes along which a ragged Dataset holds its images one after another


def select_images(dataset: xr.Dataset, images: Sequence[int] | np.ndarray) -> xr.Dataset:
    """Some images of a Dataset of embeddings, in the order asked, ragged or not. Nothing is read before it is used."""
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
    return dataset.drop_vars(list(offsets)).isel(chosen).assign(offsets)


def ragged_from_arrays(
    pre: Sequence[np.ndarray], post: Sequence[np.ndarray], image_ids: Sequence[str], about: dict[str, Any]
) -> xr.Dataset:
    """Embeddings of images that differ in how many patches and tokens they have; see `memory.from_arrays`.

    Parameters: pre and post, an array for each image, (rows, d) or (row, col, d): a grid of them. Where every image has
        as many tokens as patches, a token stands for the patch at its place; where all tokens come as grids, for the
        block of patches; else tokens have no place.
    Raises: LossmapError if a grid of tokens doesn't divide that of the patches into squares, or a width differs.
    """
    grids = [_grid(values) for values in pre]
    high, wide = zip(*grids, strict=True)
    tokens: list[tuple[int, int] | None]
    if all(values.ndim == 3 for values in post):
        tokens = [_grid(values) for values in post]
    elif all(
        len(a.reshape(-1, a.shape[-1])) == len(b.reshape(-1, b.shape[-1])) for a, b in zip(pre, post, strict=True)
    ):
        tokens = list(grids)
    else:
        tokens = [None] * len(grids)
    spans = []
    for name, grid, cut, values in zip(image_ids, grids, tokens, post, strict=True):
        if cut is None:
            spans.append(Span(len(values.reshape(-1, values.shape[-1])), 0))
            continue
        merge = grid[0] // cut[0]
        if merge < 1 or (cut[0] * merge, cut[1] * merge) != grid:
            raise LossmapError(
                f"image {name}: {grid[0]} x {grid[1]} patches can't be cut into squares, one for each of"
                f" {cut[0]} x {cut[1]} tokens. Give its tokens as (tokens, d): without a place."
            )
        spans.append(Span(*cut, merge=merge))
    shapes = [Shape((ViewShape(*grid),), (span,)) for grid, span in zip(grids, spans, strict=True)]
    flat = {}
    for name, arrays in (("pre", pre), ("post", post)):
        if len(widths := sorted({values.shape[-1] for values in arrays})) != 1:
            raise LossmapError(f"{name}: images have {' and '.join(map(str, widths))} features; wanted one number.")
        flat[name] = [values.reshape(-1, widths[0]) for values in arrays]
    variables: dict[str, Any] = {}
    for name, arrays in flat.items():
        variables[name] = RAGGED[name], np.concatenate(arrays)
        means = np.stack([values.mean(axis=0, dtype=np.float32) for values in arrays])
        variables[f"{name}_mean"] = ("image", {"pre": "feature", "post": "feature_out"}[name]), means
    count = np.arange(len(shapes) + 1)
    layouts = {
        "patch_offset": np.cumsum([0, *(shape.patches for shape in shapes)]),
        "token_offset": np.cumsum([0, *(shape.tokens for shape in shapes)]),
        "view_offset": count,
        "span_offset": count,
        "view_shape": np.array([(rows, cols, 0, 0) for rows, cols in zip(high, wide, strict=True)], dtype=np.int32),
        "span": np.array([(s.rows, s.cols, 0, 1, 1, s.merge, 0, 0, 0) for s in spans], dtype=np.int32),
        # Nothing is known of the image: boxes are those of one as large as its grid, a pixel for a patch.
        "view_box": np.array([(0, 0, cols, rows) for rows, cols in zip(high, wide, strict=True)], dtype=np.float32),
    }
    variables |= {name: (LAYOUT_DIMENSIONS[name], values) for name, values in layouts.items()}
    return xr.Dataset(variables, {"image_id": ("image", np.array(image_ids, dtype=str))}, about)


def ragged_losses(
    batches: list[dict[str, Any]], embeddings: xr.Dataset, losses: Sequence[str], about: dict
) -> xr.Dataset:
    """The patch losses of one reconstructor on ragged embeddings.

    Parameters: batches, of `evaluation.measure_losses`; embeddings, of the same images, in order; losses, their names.
    Returns: a Dataset of each loss and pre_norm (patch,), float32, in the order of pre, NaN for patches that no token
        stands for; with what embeddings say of layouts.
    """
    variables: dict[str, Any] = {}
    for name in (*losses, "pre_norm"):
        values = np.concatenate([batch[name][0] if name in losses else batch[name] for batch in batches])
        variables[name] = ("patch",), values.astype(np.float32)
    for name in (*LAYOUT_DIMENSIONS, "size"):
        if name in embeddings:
            variables[name] = embeddings[name].dims, embeddings[name].values
    return xr.Dataset(variables, {"image_id": ("image", embeddings["image_id"].values)}, about)


def _grid(values: np.ndarray) -> tuple[int, int]:
    return (1, len(values)) if values.ndim == 2 else (values.shape[0], values.shape[1])
