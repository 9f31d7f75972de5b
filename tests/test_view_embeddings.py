"""Embeddings of images in views: what the model itself makes of its own processor's pixels, token for token."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from received import received
from test_views import CUT, SIZES, WIDER, by_transformers, noise, tiny
from tiny_models import save_tiny
from transformers import AutoModelForImageTextToText

from lossmap.vlm.embedding import Batches, embed_images
from lossmap.vlm.families import FAMILIES
from lossmap.vlm.loading import load_vision_side
from lossmap.vlm.recompute import load_connector

torch.set_num_threads(1)
TRIED = SIZES[:7]


def save(model_type, folder):
    """A tiny model whose processor cuts as in tests of views."""
    save_tiny(model_type, folder)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text()) | WIDER.get(model_type, {})
    path.write_text(json.dumps(settings))
    config = json.loads((folder / "config.json").read_text())
    if "image_grid_pinpoints" in config:
        config["image_grid_pinpoints"] = settings["image_grid_pinpoints"]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module", params=CUT)
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save(request.param, folder)
    return request.param, folder, load_vision_side(folder, view="processor")


@pytest.fixture(scope="module")
def embedded(model):
    model_type, _, vision = model
    images = [noise(*tiny(model_type, size), seed=i) for i, size in enumerate(TRIED)]
    (found,) = embed_images(vision, Batches(vision.preprocessor, images, 32), torch.float32, 1)
    return images, found


def rows_of(found, name, i):
    counts = [getattr(layout.shape, {"pre": "patches", "post": "tokens"}[name]) for layout in found["layouts"]]
    start = sum(counts[:i])
    return found[name][start : start + counts[i]]


@pytest.mark.parametrize("i", range(len(TRIED)))
def test_post_equals_the_models_own(model, embedded, i):
    model_type, folder, _ = model
    images, found = embedded
    whole = AutoModelForImageTextToText.from_pretrained(folder).eval()
    inputs = by_transformers(model_type, folder, images[i])
    outputs = received(whole, {name: inputs[name] for name in FAMILIES[model_type].inputs})
    wanted = torch.cat([out if torch.is_tensor(out) else torch.cat(list(out)) for out in outputs], dim=-1)
    post = rows_of(found, "post", i)
    assert post.shape == wanted.flatten(0, -2).shape
    np.testing.assert_allclose(post, wanted.flatten(0, -2).numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["post_mean"][i], post.mean(0), rtol=1e-4, atol=1e-5)


def test_post_is_made_again_from_pre(model, embedded):
    _, folder, _ = model
    connector = load_connector(folder, view="processor")
    _, found = embedded
    for i, layout in enumerate(found["layouts"]):
        again = connector(rows_of(found, "pre", i)[None], layout.shape)[0]
        np.testing.assert_allclose(again, rows_of(found, "post", i), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [(140, 100), (60, 170)])
def test_a_spot_on_the_image_is_found_in_the_patches_that_show_it(model, size):
    """The rows of pre that change most, when a spot of an image changes, are of patches whose boxes hold it."""
    _, _, vision = model
    layout = vision.preprocessor.layout(*size)
    plain = np.full((size[1], size[0], 3), 120, np.uint8)
    x, y = int(size[0] * 0.7), int(size[1] * 0.3)
    spot = plain.copy()
    spot[y - 3 : y + 3, x - 3 : x + 3] = 250
    pre = [_embedded(vision, image, layout.shape)[0] for image in (plain, spot)]
    change = np.linalg.norm(pre[1] - pre[0], axis=-1)
    for view, start, (left, top, right, bottom) in zip(
        layout.shape.views, layout.shape.starts, layout.boxes, strict=True
    ):
        if not (left < x - 3 and x + 3 < right and top < y - 3 and y + 3 < bottom):
            continue
        own = slice(start, start + view.rows * view.cols)
        box = layout.patch_boxes[own][change[own].argmax()]
        assert box[0] - 3 <= x <= box[2] + 3
        assert box[1] - 3 <= y <= box[3] + 3


def _embedded(vision, image, shape):
    made = vision.preprocessor
    inputs = made.normalise(made.prepare([Image.fromarray(image)]))
    pre, post = vision.embed(inputs, shape)
    return pre[0].numpy(), post[0].numpy()


def test_images_together_and_alone_give_the_same(model, embedded):
    _, _, vision = model
    images, found = embedded
    more = [images[0], images[3], images[0]]
    (together,) = embed_images(vision, Batches(vision.preprocessor, more, 32), torch.float32, 1)
    np.testing.assert_allclose(rows_of(together, "pre", 2), rows_of(found, "pre", 0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(rows_of(together, "post", 1), rows_of(found, "post", 3), rtol=1e-4, atol=1e-4)
    assert together["layouts"][0] == together["layouts"][2] == found["layouts"][0]
