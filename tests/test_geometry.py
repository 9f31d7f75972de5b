"""Which pixels a patch saw: by hand, and by experiment in each family."""

import numpy as np
import pytest
from PIL import Image
from tiny_models import CONFIGS, NEEDS_SIDE, SIDE, save_config

from lossmap.vlm.geometry import ImageGeometry
from lossmap.vlm.preprocessing import load_preprocessor

SUPPORT = {Image.Resampling.BILINEAR: 1, Image.Resampling.BICUBIC: 2, Image.Resampling.LANCZOS: 3}


def test_a_centre_crop_counted_by_hand():
    # 100 x 60, a crop of the middle 60 x 60 in 3 x 3 patches of 20
    geometry = ImageGeometry(100, 60, (20, 0, 80, 60), 3, 3)
    assert geometry.patch_box(0, 0) == (20, 0, 40, 20)
    assert geometry.patch_box(2, 1) == (40, 40, 60, 60)
    assert geometry.boxes().shape == (3, 3, 4)
    assert geometry.patch_of_pixel(20, 0) == (0, 0)
    assert geometry.patch_of_pixel(59, 59) == (2, 1)
    assert geometry.patch_of_pixel(79, 20) == (1, 2)
    assert geometry.patch_of_pixel(19, 30) is None
    assert geometry.patch_of_pixel(80, 30) is None


def test_patch_boxes_tile_the_box_and_every_pixel_is_in_the_box_of_its_patch():
    geometry = ImageGeometry(31, 47, (-2.5, 3.25, 33.5, 44.0), 4, 5)
    boxes = geometry.boxes()
    left, top, right, bottom = geometry.box
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    assert areas.sum() == pytest.approx((right - left) * (bottom - top))
    assert (boxes[:, 1:, 0] == boxes[:, :-1, 2]).all()
    assert (boxes[1:, :, 1] == boxes[:-1, :, 3]).all()
    for x in range(31):
        for y in range(47):
            patch = geometry.patch_of_pixel(x, y)
            if patch is None:
                assert not (top <= y + 0.5 < bottom)
            else:
                x0, y0, x1, y1 = geometry.patch_box(*patch)
                assert x0 <= x + 0.5 <= x1
                assert y0 <= y + 0.5 <= y1


def test_a_patch_or_pixel_that_does_not_exist_is_named():
    geometry = ImageGeometry(10, 10, (0, 0, 10, 10), 2, 2)
    with pytest.raises(IndexError, match=r"patch \(2, 0\) is outside the grid of 2 x 2"):
        geometry.patch_box(2, 0)
    with pytest.raises(IndexError, match=r"pixel \(-1, 0\) is outside the image of 10 x 10"):
        geometry.patch_of_pixel(-1, 0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A configuration and image processor of every family, without weights."""
    root = tmp_path_factory.mktemp("families")
    for model_type in CONFIGS:
        save_config(model_type, root / model_type)
    margins = {"image_processor_type": "LlavaImageProcessor", "do_pad": True}
    save_config("llava", root / "llava, margins", processor=margins)
    return root


@pytest.mark.parametrize("model_type", [*CONFIGS, "llava, margins"])
@pytest.mark.parametrize("size", [(160, 96), (90, 131)], ids=str)
def test_a_changed_square_changes_exactly_the_patches_whose_boxes_it_touches(folders, model_type, size):
    preprocessor = load_preprocessor(folders / model_type, image_size=SIDE if model_type in NEEDS_SIDE else None)
    width, height = size
    geometry = preprocessor.geometry(width, height)
    rows, cols = preprocessor.grid
    original = Image.new("RGB", size, (40, 120, 200))
    before = preprocessor.prepare([original])["pixels"].numpy()[0].astype(int)
    boxes = geometry.boxes()
    scale = max(geometry.box[2] - geometry.box[0], geometry.box[3] - geometry.box[1]) / SIDE
    steps = 2 if preprocessor.view == "longest" else 1
    reach = steps * SUPPORT[preprocessor.resample] * max(scale, 1) + 0.5
    side = 7
    rng = np.random.default_rng(5)
    corners = [(0, 0), (width - side, height - side), (0, height - side)]
    corners += [(int(rng.integers(width - side)), int(rng.integers(height - side))) for _ in range(25)]
    for left, top in corners:
        changed = original.copy()
        changed.paste((255, 0, 0), (left, top, left + side, top + side))
        after = preprocessor.prepare([changed])["pixels"].numpy()[0].astype(int)
        p = preprocessor.patch
        differs = (before != after).any(2).reshape(rows, p, cols, p).any((1, 3))
        across = np.minimum(boxes[..., 2], left + side) - np.maximum(boxes[..., 0], left)
        down = np.minimum(boxes[..., 3], top + side) - np.maximum(boxes[..., 1], top)
        assert differs[(across >= scale) & (down >= scale)].all()  # at least one whole pixel of the model's input
        assert not differs[(across < -reach) | (down < -reach)].any()
        middle = geometry.patch_of_pixel(left + side // 2, top + side // 2)
        assert differs[middle] if middle else not differs[(across < -reach) | (down < -reach)].any()


def test_only_the_centre_crop_leaves_pixels_out(folders):
    for model_type in CONFIGS:
        preprocessor = load_preprocessor(folders / model_type, image_size=SIDE if model_type in NEEDS_SIDE else None)
        geometry = preprocessor.geometry(640, 480)
        if preprocessor.view == "padded":
            assert geometry.box == (0, -80, 640, 560)
        elif preprocessor.view == "corner":  # what is filled up lies below
            assert geometry.box == (0, 0, 640, 640)
        elif preprocessor.crop:
            assert geometry.patch_of_pixel(0, 240) is None
            assert geometry.patch_of_pixel(639, 240) is None
            # 640 x 480 -> 85 x 64 (640 * 64 / 480 = 85.33, truncated), of which columns 10 to 73 are kept
            assert geometry.box == pytest.approx((10 * 640 / 85, 0, 74 * 640 / 85, 480))
        else:
            assert geometry.box == (0, 0, 640, 480)


def test_llava_counts_as_its_processor_does_at_full_size(tmp_path):
    save_config("llava", tmp_path, size=336, patch=14)
    preprocessor = load_preprocessor(tmp_path)
    assert preprocessor.grid == (24, 24)
    geometry = preprocessor.geometry(640, 480)  # -> 448 x 336, columns 56 to 391
    assert geometry.box == pytest.approx((80, 0, 560, 480))
    assert geometry.patch_box(0, 0) == pytest.approx((80, 0, 100, 20))
    portrait = preprocessor.geometry(333, 500)  # -> 336 x 504: 336 * 500 / 333 = 504.5
    assert portrait.box == pytest.approx((0, 84 * 500 / 504, 333, 420 * 500 / 504))


def test_a_last_strip_narrower_than_a_patch_is_not_seen(tmp_path):
    save_config("llava", tmp_path, size=68)  # 8 patches of 8, and 4 pixels more
    preprocessor = load_preprocessor(tmp_path)
    assert preprocessor.input_size == (68, 68)
    assert preprocessor.grid == (8, 8)
    geometry = preprocessor.geometry(136, 136)
    assert geometry.box == (0, 0, 128, 128)
    assert geometry.patch_of_pixel(127, 127) == (7, 7)
    assert geometry.patch_of_pixel(128, 0) is None


def test_a_crop_larger_than_the_resized_image_reaches_outside_it(tmp_path):
    save_config("llava", tmp_path, processor={"size": {"shortest_edge": 40}})
    preprocessor = load_preprocessor(tmp_path)
    geometry = preprocessor.geometry(80, 80)  # -> 40 x 40, padded to 64 x 64: 12 on each side, 24 of the original
    assert geometry.box == pytest.approx((-24, -24, 104, 104))
    pixels = preprocessor.prepare([Image.new("RGB", (80, 80), "white")])["pixels"].numpy()[0]
    filled = pixels.any(2)
    assert filled[12:52, 12:52].all()
    assert filled.sum() == 40 * 40
