"""Rows of pre without a place, before the patches (a class token): in pre, and in no box, target or loss."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import IMAGE_PROCESSORS, save_tiny
from transformers import AutoModel

import lossmap
from lossmap.errors import LossmapError
from lossmap.store.images import Images
from lossmap.study.cost.models import vision_cost
from lossmap.vlm.checkpoint_check import checkpoint_problems
from lossmap.vlm.generation import load_language_side

torch.set_num_threads(1)
SIZES = [(61, 170), (200, 37), (5, 7), (700, 900), (128, 64), (129, 64), (64, 64), (90, 70)]


def pictures(sizes=SIZES):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (high, wide, 3), dtype=np.uint8)) for wide, high in sizes]


@pytest.fixture(scope="module")
def kosmos(tmp_path_factory):
    """A checkpoint, its whole model, and embeddings of pictures of eight shapes."""
    folder = tmp_path_factory.mktemp("kosmos")
    model = save_tiny("kosmos-2", folder)
    return folder, model, lossmap.embed(lossmap.open_model(folder, device="cpu"), pictures())


def test_post_is_what_the_model_makes_of_its_own_processors_pixels(kosmos):
    folder, _, found = kosmos
    base = AutoModel.from_pretrained(folder).eval()
    for i, picture in enumerate(pictures()):
        with torch.inference_mode():
            pixels = IMAGE_PROCESSORS["kosmos-2"]()(picture, return_tensors="pt")["pixel_values"]
            wanted = base.get_image_features(pixels).pooler_output
        np.testing.assert_allclose(Images(found).read("post", [i]), wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_the_class_token_is_the_first_row_of_each_image_and_has_no_box(kosmos):
    _, _, found = kosmos
    boxes = found["patch_box"].values.reshape(len(SIZES), 65, 4)
    assert np.isnan(boxes[:, 0]).all()
    assert np.isfinite(boxes[:, 1:]).all()
    assert np.isnan(found["token_box"].values).all()
    np.testing.assert_allclose(np.linalg.norm(found["pre"].values, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(boxes[6, 1], (0, 0, 8, 8))  # of the picture that fits exactly
    assert Images(found).shapes[0].targets.tolist() == list(range(1, 65))


def test_a_model_in_memory_gives_the_same(kosmos):
    _, model, found = kosmos
    mine = lossmap.embed(lossmap.open_model(model, IMAGE_PROCESSORS["kosmos-2"]()), pictures())
    for name in ("pre", "post"):
        np.testing.assert_array_equal(mine[name], found[name])


def test_a_store_is_reconstructed_and_losses_leave_the_class_token_out(kosmos, tmp_path):
    folder, _, _ = kosmos
    many = pictures([(64, 64), (80, 64)] * 20)
    store = tmp_path / "mine.json"
    found = lossmap.embed(lossmap.open_model(folder, device="cpu"), many, store=store)
    assert found.attrs["pre_grid"] is None
    ridge = lossmap.train_reconstructor(found, "ridge", device="cpu")
    losses = lossmap.patch_losses(ridge, found)
    values = losses["squared_error"].values.reshape(-1, 65)
    assert np.isnan(values[:, 0]).all()
    assert np.isfinite(values[:, 1:]).all()
    assert lossmap.neighbour_overlap(found, k=5).n == 40


def test_a_plan_counts_the_class_token_among_the_rows(kosmos):
    folder, _, _ = kosmos
    cost = vision_cost(folder, None, "float32", "kosmos")
    assert (cost.patches, cost.pre_shape[0], cost.post_shape[0]) == (65, 64, 4)


def test_text_is_refused_before_any_work(kosmos):
    folder, _, _ = kosmos
    (problem,) = checkpoint_problems(folder, asked=True)
    assert "marks an image's place in a prompt in a way of its own" in problem
    assert not checkpoint_problems(folder)
    with pytest.raises(LossmapError, match="Leave this model out of captions"):
        load_language_side(folder)
