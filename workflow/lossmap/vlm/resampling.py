"""A window of a resized image, without the rest of it.

A model that crops the centre of what was resized by its shortest edge, or pads to a square by the longest, is given
huge pictures on the way where an image is very long and thin: 5,000 x 1 pixels become 1,680,000 x 336. Only a window of
it is seen. Pictures that are `SMALL`, or not many times the image itself, are made whole, by Pillow. Of larger ones the
window alone is computed, by Pillow's arithmetic, which gives the same bytes: columns first, then rows (Pillow's order
where both sides grow, and for squares), 8 bits between, coefficients rounded to 22 bits.
"""

import functools
from collections.abc import Callable

import numpy as np
from PIL import Image

from lossmap.data.images import MAX_PIXELS

SMALL = 2**25  # pixels, 128 MB
TIMES = 4  # a picture of so many times the image's pixels takes about as long to make as the image to decode
BITS = 22  # of a coefficient, behind the point
Size = tuple[int, int]


def resized_window(
    image: Image.Image, canvas: Size, corner: Size, fill: tuple[int, int, int], size: Size, resample: int, window
) -> Image.Image:
    """`image`, laid on a canvas, resized to `size`, of which a window is kept.

    Parameters: image, RGB; canvas, width and height; corner, left and top of the image on it; fill, the colour of the
        rest; size, the width and height that the canvas is resized to; resample, Pillow's filter number; window, left,
        top, right and bottom in the resized canvas: black where it reaches outside.
    Returns: RGB, of the window's size.
    """
    grows = size[0] >= canvas[0] and size[1] >= canvas[1]
    square = canvas[0] == canvas[1] and size[0] == size[1]
    most = max(SMALL, min(TIMES * image.width * image.height, MAX_PIXELS))
    small = max(canvas[0] * canvas[1], size[0] * size[1]) <= most
    nearest = resample == Image.Resampling.NEAREST
    if small or not (nearest or (resample in KERNELS and (grows or square))):
        if canvas != image.size:
            whole = Image.new("RGB", canvas, fill)
            whole.paste(image, corner)
            image = whole
        return image.resize(size, resample).crop(window)
    left, top, right, bottom = window
    inside = max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
    of_lines = _nearest_lines if nearest else functools.partial(_resized_lines, resample=resample)
    pixels = np.asarray(image).transpose(1, 0, 2)
    pixels = of_lines(pixels, corner[0], canvas[0], size[0], inside[0::2], fill=fill)
    pixels = of_lines(pixels.transpose(1, 0, 2), corner[1], canvas[1], size[1], inside[1::2], fill=fill)
    result = Image.new("RGB", (right - left, bottom - top))
    result.paste(Image.fromarray(pixels), (inside[0] - left, inside[1] - top))
    return result


def _resized_lines(lines: np.ndarray, first: int, before: int, after: int, wanted, resample: int, fill) -> np.ndarray:
    """Some of the `after` lines that a picture of `before` lines is resized to.

    lines: (n, m, 3) uint8, those from `first` on; the others are of the colour `fill`. wanted: the first and the one
    after the last. Returns: (wanted, m, 3) uint8.
    """
    kernel, reach = KERNELS[resample]
    scale = before / after
    stretch = max(scale, 1.0)
    result = np.empty((wanted[1] - wanted[0], *lines.shape[1:]), dtype=np.uint8)
    for row, line in enumerate(range(*wanted)):
        centre = (line + 0.5) * scale
        start, stop = max(int(centre - reach * stretch + 0.5), 0), min(int(centre + reach * stretch + 0.5), before)
        weights = kernel((np.arange(start, stop) - centre + 0.5) * (1.0 / stretch))
        weights = weights / np.cumsum(weights)[-1] * 2**BITS  # summed one after another, as Pillow does
        weights = np.trunc(weights + np.copysign(0.5, weights))
        begin, end = np.clip((first, first + len(lines)), start, stop)
        # Whole numbers below 2^53: exact, in whatever order they are added.
        seen = np.tensordot(weights[begin - start : end - start], lines[begin - first : end - first].astype(float), 1)
        unseen = (weights.sum() - weights[begin - start : end - start].sum()) * np.array(fill, dtype=float)
        result[row] = np.clip(np.floor((seen + unseen + 2 ** (BITS - 1)) / 2**BITS), 0, 255)
    return result


def _nearest_lines(lines: np.ndarray, first: int, before: int, after: int, wanted, fill) -> np.ndarray:
    """As `_resized_lines`, by the nearest line."""
    steps = np.full(wanted[1], before / after)
    steps[0] *= 0.5
    found = np.cumsum(steps).astype(np.int64)[wanted[0] :] - first  # summed one after another, as Pillow does
    result = np.empty((len(found), *lines.shape[1:]), dtype=np.uint8)
    result[:] = fill
    held = (found >= 0) & (found < len(lines))
    result[held] = lines[found[held]]
    return result


def _box(x):
    return ((x > -0.5) & (x <= 0.5)).astype(float)


def _bilinear(x):
    return np.maximum(1.0 - np.abs(x), 0.0)


def _hamming(x):
    x = np.abs(x)
    return np.where(x < 1.0, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0.0)


def _bicubic(x):
    x, a = np.abs(x), -0.5
    near, far = ((a + 2.0) * x - (a + 3.0)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(x):
    return np.where((x >= -3.0) & (x < 3.0), np.sinc(x) * np.sinc(x / 3), 0.0)


# Pillow's filters, with how far they reach on either side; all but the nearest pixel.
KERNELS: dict[int, tuple[Callable, float]] = {
    Image.Resampling.BOX: (_box, 0.5),
    Image.Resampling.BILINEAR: (_bilinear, 1.0),
    Image.Resampling.HAMMING: (_hamming, 1.0),
    Image.Resampling.BICUBIC: (_bicubic, 2.0),
    Image.Resampling.LANCZOS: (_lanczos, 3.0),
}
