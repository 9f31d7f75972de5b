"""Texts about images in views: those of the ordinary path, with the model's own processor, token by token."""

import json

import pytest
import torch
from test_generation import ASKED, FAMILIES, trimmed
from test_views import CUT, SIZES, WIDER, noise
from tiny_processors import save_speaking
from transformers import AutoModelForImageTextToText

from lossmap.errors import LossmapError
from lossmap.vlm.generation import load_language_side
from lossmap.vlm.loading import load_vision_side
from lossmap.vlm.processors import load_processor

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=[name for name in FAMILIES if name in CUT])
def speaking(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_speaking(request.param, folder)
    path = folder / "processor_config.json"
    content = json.loads(path.read_text())
    settings = content["image_processor"] | WIDER.get(request.param, {})
    path.write_text(json.dumps(content | {"image_processor": settings}))
    config = json.loads((folder / "config.json").read_text())
    if "image_grid_pinpoints" in config:
        config["image_grid_pinpoints"] = settings["image_grid_pinpoints"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("size", SIZES[:2])
def test_every_family_says_what_it_says_with_its_own_processor(speaking, size):
    vision, language = (load(speaking, view="processor") for load in (load_vision_side, load_language_side))
    image, made = noise(*size), vision.preprocessor
    post = vision.embed(made.normalise(made.prepare([image])), made.layout(*size).shape)[1]
    whole, processor = AutoModelForImageTextToText.from_pretrained(speaking).eval(), load_processor(speaking)
    for prompt in ASKED[:2]:
        inputs = processor(
            images=[[image]], text=[language.chat(prompt)], return_tensors="pt", add_special_tokens=False
        )
        with torch.inference_mode():
            expected = whole.generate(**inputs, max_new_tokens=6, do_sample=False)
        expected = expected[:, inputs["input_ids"].shape[1] :].tolist()
        assert language.generate([prompt], post, 6, size) == trimmed(expected, 2)


def test_images_in_views_need_their_size(speaking):
    language = load_language_side(speaking, view="processor")
    with pytest.raises(LossmapError, match="its images are seen in views. Give the size of these images"):
        language.encode(ASKED[:1], 10)
