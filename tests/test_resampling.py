"""A window of a resized image: the bytes that Pillow gives where it makes the whole."""

import numpy as np
import pytest
from PIL import Image

from lossmap.vlm import resampling
from lossmap.vlm.resampling import KERNELS, resized_window

FILL = (122, 116, 104)


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def by_the_whole(image, canvas, corner, size, resample, window):
    whole = Image.new("RGB", canvas, FILL)
    whole.paste(image, corner)
    return whole.resize(size, resample).crop(window)


@pytest.fixture
def compared(monkeypatch):
    """Both ways, and how many windows were computed without the whole."""
    made = []
    lines, nearest = resampling._resized_lines, resampling._nearest_lines
    monkeypatch.setattr(resampling, "MAX_PIXELS", 0)
    monkeypatch.setattr(resampling, "SMALL", 0)
    monkeypatch.setattr(resampling, "_resized_lines", lambda *given, **more: made.append(1) or lines(*given, **more))
    monkeypatch.setattr(resampling, "_nearest_lines", lambda *given, **more: made.append(1) or nearest(*given, **more))

    def compare(image, canvas, corner, size, resample, window):
        found = resized_window(image, canvas, corner, FILL, size, resample, window)
        wanted = by_the_whole(image, canvas, corner, size, resample, window)
        assert found.size == wanted.size
        assert np.array_equal(found, wanted), (image.size, size, window)
        return len(made) // 2

    return compare


@pytest.mark.parametrize("resample", [*KERNELS, Image.Resampling.NEAREST])
def test_a_centre_crop_has_the_bytes_of_the_whole(compared, resample):
    rng = np.random.default_rng(1)
    for _ in range(150):
        side = int(rng.integers(8, 80))
        width, height = (int(v) for v in np.exp(rng.uniform(0, 6, 2)))
        short, long = sorted((width, height))
        longer = int(side * long / short)
        size = (side, longer) if width <= height else (longer, side)
        if longer * side > 1_000_000:
            continue
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        window = (left, top, left + side, top + side)
        without = compared(noise(width, height), (width, height), (0, 0), size, resample, window)
    assert without > 20


@pytest.mark.parametrize("resample", [*KERNELS, Image.Resampling.NEAREST])
def test_a_padded_image_has_the_bytes_of_the_whole(compared, resample):
    rng = np.random.default_rng(2)
    for _ in range(60):
        width, height = (int(v) for v in np.exp(rng.uniform(0, 6, 2)))
        longest, side = max(width, height), int(rng.integers(8, 80))
        corner = ((longest - width) // 2, (longest - height) // 2)
        crop = int(rng.integers(4, 90))  # larger than the resized picture, too
        left = (side - crop) // 2
        window = (left, left, left + crop, left + crop)
        without = compared(noise(width, height), (longest, longest), corner, (side, side), resample, window)
    assert without == 60


@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.NEAREST])
@pytest.mark.parametrize("size", [(600, 1), (1, 600), (1001, 3), (2, 999)])
def test_strips_at_full_size_have_the_bytes_of_the_whole(compared, size, resample):
    longer = int(336 * max(size) / min(size))
    resized, left = ((longer, 336) if size[0] > size[1] else (336, longer)), (longer - 336) // 2
    window = (left, 0, left + 336, 336) if size[0] > size[1] else (0, left, 336, left + 336)
    assert compared(noise(*size), size, (0, 0), resized, resample, window) == 1
