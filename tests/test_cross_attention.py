"""Models whose language model reads images by cross-attention: post is the sequence that those layers read."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from received import received
from tiny_models import IMAGE_PROCESSORS, SIDE, save_config, save_tiny
from transformers.models.mllama.image_processing_pil_mllama import (
    get_image_size_fit_to_canvas,
    get_optimal_tiled_canvas,
)

import lossmap
from lossmap.errors import LossmapError
from lossmap.store.images import Images
from lossmap.vlm.canvas import fitted
from lossmap.vlm.checkpoint_check import checkpoint_problems
from lossmap.vlm.generation import load_language_side
from lossmap.vlm.input_size import size_problem
from lossmap.vlm.preprocessing import load_preprocessor
from lossmap.vlm.stored import open_embeddings

torch.set_num_threads(1)
SIZES = [(61, 170), (200, 37), (5, 7), (700, 900), (2 * SIDE, SIDE), (2 * SIDE + 1, SIDE), (SIDE, SIDE), (90, 70)]


def pictures(sizes=SIZES):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (high, wide, 3), dtype=np.uint8)) for wide, high in sizes]


@pytest.fixture(scope="module")
def mllama(tmp_path_factory):
    """A checkpoint and its whole model."""
    folder = tmp_path_factory.mktemp("mllama")
    return folder, save_tiny("mllama", folder)


@pytest.mark.parametrize("view", ["processor", "square"])
def test_post_is_what_cross_attention_reads_of_the_processors_own_pixels(mllama, view):
    """Of images of eight shapes together; a square view is the processor's own of one tile."""
    folder, model = mllama
    found = lossmap.embed(lossmap.open_model(folder, view=view, device="cpu"), pictures())
    processor = IMAGE_PROCESSORS["mllama"]()
    most = 1 if view == "square" else 4
    for i, picture in enumerate(pictures()):
        inputs = dict(processor(picture, max_image_tiles=most, return_tensors="pt"))
        ((count,),) = inputs.pop("num_tiles")
        for name in ("pixel_values", "aspect_ratio_mask"):  # as many as the tower takes
            shape = (1, 1, 4 - most, *inputs[name].shape[3:])
            inputs[name] = torch.cat([inputs[name], inputs[name].new_zeros(shape)], 2)
        ((wanted,),) = received(model, inputs)
        np.testing.assert_allclose(Images(found).read("post", [i])[0], wanted.numpy(), rtol=1e-4, atol=1e-5)
        assert len(Images(found).shapes[Images(found).kinds[i]].views) == count


def test_what_empty_tiles_hold_reaches_post(mllama):
    """So that they can't be left out before the tower, where only the tiles of an image enter the connector."""
    folder, _ = mllama
    vision = lossmap.open_model(folder, device="cpu")
    inputs = vision.preprocessor.normalise(vision.preprocessor.prepare(pictures([(SIDE, SIDE)])))
    shape = vision.layout(SIDE, SIDE).shape
    pre, post = vision.embed(inputs, shape)
    assert pre.shape[:2] == post.shape[:2] == (1, 65)
    inputs["pixel_values"][:, :, 1:] += 1
    assert (vision.embed(inputs, shape)[0] - pre).norm() > 0.01 * pre.norm()


def test_grids_and_sizes_are_the_processors_for_many_shapes(mllama):
    folder, _ = mllama
    tiling = load_preprocessor(folder, view="processor").tiling
    for width, height in np.random.default_rng(0).integers(1, 400, (300, 2)).tolist():
        canvas = get_optimal_tiled_canvas(height, width, 4, SIDE)
        assert tiling.grid(width, height) == (canvas[0] // SIDE, canvas[1] // SIDE)
        assert fitted(width, height, canvas, SIDE) == get_image_size_fit_to_canvas(height, width, *canvas, SIDE)


def test_class_tokens_stand_before_each_tile_and_have_no_box(mllama):
    folder, _ = mllama
    layout = lossmap.open_model(folder, device="cpu").layout(2 * SIDE, SIDE)
    assert [view.kind for view in layout.shape.views] == ["tile", "tile"]
    for boxes in (layout.patch_boxes, layout.token_boxes):
        assert np.flatnonzero(np.isnan(boxes[:, 0])).tolist() == [0, 65]
        np.testing.assert_allclose(boxes[[1, 66]], [(0, 0, 8, 8), (SIDE, 0, SIDE + 8, 8)])
    tokens, patches = layout.shape.blocks
    assert tokens.tolist() == patches[:, 0].tolist() == [*range(1, 65), *range(66, 130)]


def test_a_store_gives_post_again_and_losses_leave_class_tokens_out(mllama, tmp_path):
    folder, _ = mllama
    many = pictures([(SIDE, SIDE), (2 * SIDE, SIDE)] * 15)
    found = lossmap.embed(lossmap.open_model(folder, device="cpu"), many, store=tmp_path / "mine.json")
    ridge = lossmap.train_reconstructor(found, "ridge", device="cpu")
    losses = lossmap.patch_losses(ridge, found)
    placed = np.isfinite(open_embeddings(tmp_path / "mine.json")["patch_box"].values[:, 0])
    assert np.array_equal(np.isfinite(losses["squared_error"].values), placed)
    assert (~placed).sum() == 45
    assert lossmap.neighbour_overlap(found, k=5).n == 30


def test_text_is_refused_before_any_work(mllama):
    folder, _ = mllama
    (problem,) = checkpoint_problems(folder, asked=True)
    assert "reads images by cross-attention" in problem
    assert not checkpoint_problems(folder, view="processor")
    with pytest.raises(LossmapError, match="Leave this model out of captions"):
        load_language_side(folder)


def test_tiles_are_as_many_as_the_tower_takes(tmp_path):
    save_config("mllama", tmp_path, processor={"max_image_tiles": 3})
    with pytest.raises(LossmapError, match="makes up to 3 tiles, its vision tower takes 4"):
        load_preprocessor(tmp_path, view="processor")
    assert "makes up to 3 tiles" in size_problem(tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text()) | {"max_image_tiles": 4}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(LossmapError, match="asks for tiles, .*; its tower takes the tiles that it makes"):
        load_preprocessor(tmp_path, view={"tiles": 2})
