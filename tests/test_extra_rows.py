"""Rows of pre without a place, before the patches (a class token): in pre, and in no box, target or loss."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from received import received
from tiny_models import CONFIGS, IMAGE_PROCESSORS, TEXT_WIDTH, save_tiny
from transformers import AutoModelForImageTextToText, Blip2Config

import lossmap
from lossmap.errors import LossmapError
from lossmap.store.images import Images
from lossmap.study.cost.models import vision_cost
from lossmap.vlm.checkpoint_check import checkpoint_problems
from lossmap.vlm.generation import load_language_side
from lossmap.vlm.input_size import embedding_shapes, size_problem
from lossmap.vlm.loading import load_vision_side, without_text
from lossmap.vlm.pixel_check import outputs

torch.set_num_threads(1)
SIZES = [(61, 170), (200, 37), (5, 7), (700, 900), (128, 64), (129, 64), (64, 64), (90, 70)]


def pictures(sizes=SIZES):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (high, wide, 3), dtype=np.uint8)) for wide, high in sizes]


@pytest.fixture(scope="module", params=["kosmos-2", "blip-2", "idefics"])
def opened(request, tmp_path_factory):
    """A checkpoint, its whole model, and embeddings of pictures of eight shapes."""
    folder = tmp_path_factory.mktemp(request.param)
    model = save_tiny(request.param, folder)
    return folder, model, lossmap.embed(lossmap.open_model(folder, device="cpu"), pictures())


def test_post_is_what_the_model_makes_of_its_own_processors_pixels(opened):
    _, model, found = opened
    for i, picture in enumerate(pictures()):
        pixels = outputs(IMAGE_PROCESSORS[model.config.model_type]()(picture, return_tensors="pt"))["pixel_values"]
        (wanted,) = received(model, {"pixel_values": pixels})
        np.testing.assert_allclose(Images(found).read("post", [i]), wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_the_class_token_is_the_first_row_of_each_image_and_has_no_box(opened):
    _, model, found = opened
    boxes = found["patch_box"].values.reshape(len(SIZES), 65, 4)
    assert np.isnan(boxes[:, 0]).all()
    assert np.isfinite(boxes[:, 1:]).all()
    assert np.isnan(found["token_box"].values).all()
    if model.config.model_type == "kosmos-2":
        np.testing.assert_allclose(np.linalg.norm(found["pre"].values, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(boxes[6, 1], (0, 0, 8, 8))  # of the picture that fits exactly
    assert Images(found).shapes[0].targets.tolist() == list(range(1, 65))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_in_half_precision_blip2_gives_what_the_class_that_generates_gives(tmp_path, dtype):
    """In float16 its Q-Former is in float32."""
    save_tiny("blip-2", tmp_path)
    vision = lossmap.open_model(tmp_path, dtype=dtype, device="cpu")
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=getattr(torch, dtype)).eval()
    assert (whole.qformer.dtype == torch.float32) == (dtype == "float16")
    inputs = vision.preprocessor.normalise(vision.preprocessor.prepare(pictures([(64, 64)])), "cpu", vision.dtype)
    with torch.inference_mode():
        wanted = whole.get_image_features(**inputs).pooler_output
    assert torch.equal(vision.embed(inputs)[1], wanted)
    assert vision.dtype == wanted.dtype == getattr(torch, dtype)


def test_blip2_before_an_encoder_and_a_decoder(tmp_path):
    """As with Flan-T5, of which nothing is built."""
    text = {"model_type": "t5", "d_model": TEXT_WIDTH, "d_kv": 12, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    config = CONFIGS["blip-2"]().to_dict() | {"text_config": {**text, "vocab_size": 40}}
    model = AutoModelForImageTextToText.from_config(Blip2Config(**config)).eval()
    assert not model.config.use_decoder_only_language_model
    model.save_pretrained(tmp_path)
    IMAGE_PROCESSORS["blip-2"]().save_pretrained(tmp_path)
    vision = lossmap.open_model(tmp_path, device="cpu")
    inputs = vision.preprocessor.normalise(vision.preprocessor.prepare(pictures([(64, 64)])))
    with torch.inference_mode():
        wanted = model.get_image_features(**inputs).pooler_output
    assert torch.equal(vision.embed(inputs)[1], wanted)
    assert without_text(vision.config).text_config.num_decoder_layers == 0
    assert embedding_shapes(tmp_path).post_shape == (4, TEXT_WIDTH)


def test_a_model_in_memory_gives_the_same(opened):
    _, model, found = opened
    mine = lossmap.embed(lossmap.open_model(model, IMAGE_PROCESSORS[model.config.model_type]()), pictures())
    for name in ("pre", "post"):
        np.testing.assert_array_equal(mine[name], found[name])


def test_a_store_is_reconstructed_and_losses_leave_the_class_token_out(opened, tmp_path):
    folder, _, _ = opened
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


def test_a_plan_counts_the_class_token_among_the_rows(opened):
    folder, _, _ = opened
    cost = vision_cost(folder, None, "float32", "it")
    assert (cost.patches, cost.pre_shape[0], cost.post_shape[0]) == (65, 64, 4)


def test_text_is_refused_before_any_work(opened):
    folder, model, _ = opened
    (problem,) = checkpoint_problems(folder, asked=True)
    why = {"kosmos-2": "marks an image's place in a prompt", "blip-2": "takes no others", "idefics": "cross-attention"}
    assert why[model.config.model_type] in problem
    assert not checkpoint_problems(folder)
    with pytest.raises(LossmapError, match="Leave this model out of captions"):
        load_language_side(folder)


def test_idefics_without_a_resampler_has_no_connector(tmp_path):
    save_tiny("idefics", tmp_path)
    content = json.loads((tmp_path / "config.json").read_text()) | {"use_resampler": False}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(LossmapError, match="use_resampler: false: .* there is no connector"):
        load_vision_side(tmp_path)
    assert "there is no connector" in size_problem(tmp_path)
