"""Where an answer lies on a model's patches: how much of each patch its mask covers, and means over patches."""

import numpy as np


def patch_coverage(mask, box, grid):
    """Share of each patch's area that a mask covers, exact to the fraction of a pixel.

    Parameters: mask (height, width) bool, of the upright original image. box: left, top, right, bottom of what the
        patches cover, in pixels of that image (of one view: `Layout.boxes`): where the model crops, it lies
        inside the image, where it pads, it reaches outside. grid: (rows, cols) of patches, which cut the box evenly.
    Returns: (rows, cols) float64 in [0, 1], no unit. The area of a patch counts whole, padding, which no mask covers,
        included; so the mean is the share of the model's input that the mask covers.
    Raises: ValueError if mask is not 2-d and bool, the box is empty or not finite, or the grid holds no patch.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype != bool:
        raise ValueError(f"mask: {mask.dtype} of shape {mask.shape}; wanted bool of 2 dimensions, height by width")
    left, top, right, bottom = map(float, box)
    if not (np.isfinite([left, top, right, bottom]).all() and left < right and top < bottom):
        raise ValueError(f"box: {(left, top, right, bottom)}; wanted left < right and top < bottom, all finite")
    rows, cols = grid
    if rows < 1 or cols < 1:
        raise ValueError(f"grid: {rows} x {cols} patches; wanted at least one row and one column")
    height, width = mask.shape
    down, across = _shares(top, bottom, rows, height), _shares(left, right, cols, width)
    return np.clip(down @ mask.astype(np.float64) @ across.T, 0, 1)


def _shares(start, stop, patches, pixels):
    """(patches, pixels): which share of each patch's length, along one axis, lies in each pixel."""
    edges = np.linspace(start, stop, patches + 1)[:, None]
    pixel = np.arange(pixels)
    common = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    return np.clip(common, 0, None) * patches / (stop - start)


def region_means(values, region):
    """Mean of each item's values over its own region of the patch grid.

    Parameters: values (n, ...), real; region, bool of the same shape: the patches that count.
    Returns: (n,) float64, in the unit of the values; nan for an item whose region has no patch: to be left out and
        counted by the caller.
    Raises: ValueError if the shapes differ, or a value is not finite (the first such item is named).
    """
    values, region = np.asarray(values, dtype=np.float64), np.asarray(region)
    if values.shape != region.shape or region.dtype != bool:
        raise ValueError(f"region: {region.dtype} of shape {region.shape}; wanted bool of shape {values.shape}")
    values, region = (array.reshape(len(array), -1) for array in (values, region))
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise ValueError(f"values: {bad.sum()} of {len(bad)} items are not finite; the first is item {bad.argmax()}")
    patches = region.sum(axis=1)
    sums = np.where(region, values, 0).sum(axis=1)
    return np.divide(sums, patches, out=np.full(len(values), np.nan), where=patches > 0)
