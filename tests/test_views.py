"""Views: equal to what each family's own image processor makes, pixel for pixel, boxes and tokens in their places."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import PATCH, SIDE, save_config
from transformers import AutoImageProcessor
from transformers.models.ovis2.image_processing_pil_ovis2 import (
    get_min_tile_covering_grid,
    get_optimal_tiled_canvas,
)

from lossmap.errors import LossmapError
from lossmap.vlm.families import FAMILIES
from lossmap.vlm.preprocessing import load_preprocessor
from lossmap.vlm.view_limits import LIMITS
from lossmap.vlm.view_settings import WAYS

# Tall, wide, tiny, larger than the largest tiling, exactly fitting, one pixel off, equal sides, a sliver.
SIZES = [(61, 170), (200, 37), (5, 7), (700, 900), (2 * SIDE, SIDE), (2 * SIDE + 1, SIDE), (SIDE, SIDE), (90, 3)]
CUT = [name for name, family in FAMILIES.items() if family.own_view]
WIDER = {  # settings under which more of a processor's ways are taken than by those of the tiny models
    "llava_next": {
        "image_grid_pinpoints": [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE], [SIDE, 3 * SIDE]]
    },
    "llava_onevision": {
        "image_grid_pinpoints": [[SIDE, SIDE], [SIDE, 2 * SIDE], [2 * SIDE, SIDE], [3 * SIDE, 2 * SIDE]]
    },
    "gemma3": {
        "do_pan_and_scan": True,
        "pan_and_scan_min_crop_size": 4,
        "pan_and_scan_max_num_crops": 4,
        "pan_and_scan_min_ratio_to_activate": 1.2,
    },
    "idefics2": {"size": {"shortest_edge": 3 * PATCH + 2, "longest_edge": SIDE}},
    **{
        name: {"size": {"shortest_edge": 4 * PATCH * PATCH * 4, "longest_edge": SIDE * SIDE * 4}}
        for name in (
            "qwen2_vl",
            "qwen2_5_vl",
            "qwen3_vl",
            "qwen3_vl_moe",
            "qwen3_5",
            "qwen3_5_moe",
            "exaone4_5",
            "ernie4_5_vl_moe",
        )
    },
    **{
        name: {"size": {"shortest_edge": 4 * PATCH * PATCH * 8, "longest_edge": SIDE * SIDE * 8}}
        for name in ("glm4v", "glm4v_moe", "glm46v", "glm_ocr")
    },
    **{name: {"size": {"longest_edge": 3 * SIDE}} for name in ("mistral3", "lighton_ocr")},
}


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def tiny(model_type, size):
    """Small images are a bit larger for Mistral 3, which fails on one token, and LightOnOCR, which fails on none."""
    larger = {"mistral3": {(5, 7): (5, 27)}, "lighton_ocr": {(5, 7): (9, 11), (90, 3): (90, 11)}}
    return larger.get(model_type, {}).get(size, size)


def opened(model_type, folder, view="processor", **settings):
    save_config(model_type, folder, processor={**WIDER.get(model_type, {}), **settings})
    return load_preprocessor(folder, view=view)


def by_transformers(model_type, folder, image):
    """What the family's unmodified image processor gives of one image, asked as its own `Processor` asks it."""
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    asked = {"crop_to_patches": True} if model_type in ("internvl", "aya_vision") else {}
    if FAMILIES[model_type].own_view == "longest":
        asked = {"patch_size": {"height": 2 * PATCH, "width": 2 * PATCH}}
    images = [[image]] if "pixel_attention_mask" in FAMILIES[model_type].inputs else [image]
    return processor(images, return_tensors="pt", **asked)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("model_type", CUT)
def test_pixels_equal_the_image_processors(tmp_path, model_type, size):
    preprocessor = opened(model_type, tmp_path)
    image = noise(*tiny(model_type, size))
    found = preprocessor.normalise(preprocessor.prepare([image]))
    wanted = by_transformers(model_type, tmp_path, image)
    assert tuple(found) == FAMILIES[model_type].inputs
    for name in found:
        assert found[name].shape == wanted[name].shape
        torch.testing.assert_close(found[name], wanted[name].to(found[name].dtype), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES[:6])
@pytest.mark.parametrize("model_type", CUT)
def test_boxes_are_where_the_pixels_come_from(tmp_path, model_type, size):
    """An image whose colours say where they are: red grows to the right, green downwards, blue is everywhere, so that
    padding is black. Each patch's mean colour tells where its centre lies."""
    preprocessor = opened(model_type, tmp_path)
    width, height = tiny(model_type, size)
    colours = np.zeros((height, width, 3))
    colours[..., 0] = (np.arange(width) + 0.5) / width * 255
    colours[..., 1] = ((np.arange(height) + 0.5) / height * 255)[:, None]
    colours[..., 2] = 255
    image = Image.fromarray(colours.round().astype(np.uint8))
    layout = preprocessor.layout(width, height)
    views = [
        values[0].numpy().astype(float) for name, values in preprocessor.prepare([image]).items() if "view" in name
    ]
    assert len(views) == len(layout.shape.views)
    for view, start, pixels in zip(layout.shape.views, layout.shape.starts, views, strict=True):
        rows, cols = view.rows, view.cols
        cells = pixels[: rows * PATCH, : cols * PATCH].reshape(rows, PATCH, cols, PATCH, 3)
        means = cells.mean((1, 3)).reshape(-1, 3)
        boxes = layout.patch_boxes[start : start + rows * cols]
        inner = (cells[..., 2].min((1, 3)).ravel() > 254.5) & _inside(boxes, width, height)
        centres = np.stack([boxes[:, [0, 2]].mean(1) / width, boxes[:, [1, 3]].mean(1) / height], 1)
        assert np.abs(means[inner, :2] / 255 - centres[inner]).max(initial=0) < 0.015
        outside = (boxes[:, 2] < -1) | (boxes[:, 3] < -1) | (boxes[:, 0] > width + 1) | (boxes[:, 1] > height + 1)
        assert (means[outside] == 0).all()


def _inside(boxes, width, height):
    """Patches that lie in the image, less what resampling blurs at its edges."""
    x, y = (max(2, 2 * side / SIDE) for side in (width, height))
    return (boxes[:, 0] > x) & (boxes[:, 1] > y) & (boxes[:, 2] < width - x) & (boxes[:, 3] < height - y)


def test_images_that_are_alike_are_prepared_together(tmp_path):
    preprocessor = opened("internvl", tmp_path)
    sizes = [(200, 100), (50, 50), (400, 200), (60, 60)]
    assert preprocessor.alike(sizes) == [[0, 2], [1, 3]]
    images = [noise(*sizes[i]) for i in (0, 2)]
    both, alone = preprocessor.prepare(images), preprocessor.prepare(images[1:])
    assert torch.equal(both["view 1"][1:], alone["view 1"])
    assert both["sizes"].tolist() == [[100, 200], [200, 400]]


@pytest.mark.parametrize(
    ("model_type", "view", "size", "views"),
    [
        ("internvl", {"tiles": 2}, (300, 100), 3),
        ("internvl", {"tiles": 1}, (300, 100), 1),
        ("ovis2", "processor", (60, 60), 1),
        ("ovis2", {"tiles": 2}, (300, 100), 3),
        ("minicpmv4_6", "processor", (60, 60), 1),
        ("minicpmv4_6", {"tiles": 2}, (300, 100), 3),
        ("aya_vision", "processor", (300, 100), 13),
        ("idefics3", {"tiles": 4}, (128, 128), 5),
        ("idefics3", {"tiles": 1}, (128, 100), 1),
        ("idefics2", {"tiles": 1}, (128, 100), 1),
        ("idefics2", {"tiles": 4}, (128, 100), 5),
        ("llava_next", {"tiles": 2}, (200, 200), 3),
        ("gemma3", {"tiles": 3}, (400, 100), 1),  # parts below the smallest that its settings name
        ("gemma4", {"max_soft_tokens": 140}, (300, 200), 1),
        ("qwen2_5_vl", {"max_pixels": 4 * PATCH**2 * 6}, (300, 200), 1),
    ],
)
def test_limits_are_the_processors_own(tmp_path, model_type, view, size, views):
    preprocessor = opened(
        model_type, tmp_path, view, **({"pan_and_scan_min_crop_size": 300} if model_type == "gemma3" else {})
    )
    layout = preprocessor.layout(*size)
    assert len(layout.shape.views) == views
    if "max_pixels" in view:
        assert layout.shape.tokens <= 6
    if "max_soft_tokens" in view:
        assert 70 < layout.shape.tokens <= 140


@pytest.mark.parametrize("mode", ["16x", "4x"])
def test_the_slices_of_minicpm_are_its_processors_for_many_shapes(tmp_path, mode):
    save_config("minicpmv4_6", tmp_path, processor={"downsample_mode": mode})
    content = json.loads((tmp_path / "config.json").read_text()) | {"downsample_mode": mode}
    (tmp_path / "config.json").write_text(json.dumps(content))
    preprocessor = load_preprocessor(tmp_path, view="processor")
    for width, height in np.random.default_rng(0).integers(3, 300, (60, 2)).tolist():
        wanted = by_transformers("minicpmv4_6", tmp_path, Image.new("RGB", (width, height)))["target_sizes"]
        cuts = preprocessor.tiling.cuts(width, height)
        assert [(high // 4, wide // 4) for high, wide in (cut.size for cut in cuts)] == list(
            map(tuple, wanted.tolist())
        )
        assert preprocessor.layout(width, height).shape.patches == wanted.prod(1).sum() // (4 if mode == "16x" else 1)


@pytest.mark.parametrize("covering", [True, False])
def test_the_grid_of_ovis2_is_its_processors_for_many_shapes(tmp_path, covering):
    tiling = opened("ovis2", tmp_path, use_covering_area_grid=covering).tiling
    for width, height in np.random.default_rng(0).integers(3, 400, (200, 2)).tolist():
        if covering:
            wanted = get_min_tile_covering_grid((height, width), SIDE, 12)
        else:
            wanted = get_optimal_tiled_canvas((height, width), (SIDE, SIDE), 1, 12)
        cuts = tiling.cuts(width, height)
        assert len(cuts) == 1 + (wanted[0] * wanted[1] if wanted != (1, 1) else 0)
        if len(cuts) > 1:
            assert cuts[1].canvas == (SIDE * wanted[1], SIDE * wanted[0])


def test_square_is_one_view_and_a_family_that_never_cuts_needs_no_tiling(tmp_path):
    save_config("llava", tmp_path)
    assert load_preprocessor(tmp_path, view="processor") == load_preprocessor(tmp_path, view="square")


@pytest.mark.parametrize(
    ("model_type", "view", "message"),
    [
        ("qwen2_5_vl", {"tiles": 4}, r"asks for tiles, .* knows min_pixels, max_pixels"),
        ("llava", {"tiles": 4}, r"asks for tiles, .* makes one view of one size"),
        ("gemma4", {"max_soft_tokens": 100}, r"max_soft_tokens is 100; choose one of 70, 140, 280, 560, 1120"),
        ("internvl", {"tiles": 0}, r"view: tiles is 0; wanted 1 or more"),
        ("llava_next", {"tiles": 1}, r"tiles is 1; its image processor makes 2 at least"),
    ],
)
def test_limits_that_a_processor_does_not_know_are_errors(tmp_path, model_type, view, message):
    with pytest.raises(LossmapError, match=message):
        opened(model_type, tmp_path, view)


@pytest.mark.parametrize(
    ("model_type", "size", "message"),
    [
        ("qwen2_5_vl", (401, 2), r"401 x 2 pixels: shapes up to 200:1"),
        ("mistral3", (1000, 1), r"1000 x 1 pixels: scaled to 192 along the longer side, nothing is left"),
        ("mistral3", (5, 7), r"5 x 7 pixels makes one token"),
        ("lighton_ocr", (90, 3), r"90 x 3 pixels is too narrow for a token of 2 x 2 patches"),
        ("glm4v", (401, 2), r"401 x 2 pixels: shapes up to 200:1"),
        ("idefics2", (9, 1), r"9 x 1 pixels can't be cut into quarters"),
    ],
)
def test_shapes_that_can_not_be_seen_are_errors(tmp_path, model_type, size, message):
    with pytest.raises(LossmapError, match=message):
        opened(model_type, tmp_path).layout(*size)


def test_tokens_that_would_be_resampled_are_refused(tmp_path):
    save_config("llava_onevision", tmp_path, processor={"image_grid_pinpoints": [[SIDE, 4 * SIDE], [SIDE, SIDE]]})
    content = json.loads((tmp_path / "config.json").read_text()) | {"vision_aspect_ratio": "anyres_max_2"}
    (tmp_path / "config.json").write_text(json.dumps(content))
    preprocessor = load_preprocessor(tmp_path, view="processor")
    assert preprocessor.layout(SIDE, SIDE).shape.tokens == 64 + 64 + 8
    with pytest.raises(LossmapError, match=r"8 x 32 tokens would be resampled .* \{tiles: 2\}"):
        preprocessor.layout(4 * SIDE, SIDE)


def test_image_size_goes_with_a_square_view_alone(tmp_path):
    save_config("qwen2_5_vl", tmp_path)
    with pytest.raises(LossmapError, match="image_size is of a square view"):
        load_preprocessor(tmp_path, image_size=SIDE, view="processor")


def test_every_way_of_cutting_says_its_limits():
    assert {family.own_view for family in FAMILIES.values() if family.own_view} == set(LIMITS) == set(WAYS)
