"""Pixel inputs: equal to each family's own image processor, and every refusal."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import CONFIGS, NEEDS_SIDE, SIDE, save_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoImageProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLProcessor,
    image_transforms,
)
from transformers.models.idefics3 import image_processing_pil_idefics3

from lossmap.errors import LossmapError
from lossmap.vlm.families import FAMILIES
from lossmap.vlm.pixel_check import outputs
from lossmap.vlm.preprocessing import load_preprocessor
from lossmap.vlm.processors import image_processor_only, load_processor

SIZES = [(96, 80), (61, 97), (64, 64), (200, 37), (131, 90), (15, 33)]
SETTINGS = {  # one view of the whole image
    "gemma4": {"do_resize": False},
    "mllama": {"max_image_tiles": 1},
    "aya_vision": {"crop_to_patches": False},
    "internvl": {"crop_to_patches": False},
    "ovis2": {"crop_to_patches": False},
    "minicpmv4_6": {"do_resize": False, "slice_mode": False},
    "idefics2": {"do_image_splitting": False},
    "idefics3": {"do_image_splitting": False, "size": {"longest_edge": SIDE}},
    "smolvlm": {"do_image_splitting": False, "size": {"longest_edge": SIDE}},
}


def noise_images(sizes=SIZES, seed=0):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def by_transformers(model_type, folder, images, **settings):
    """What the family's unmodified image processor gives, for one view of the whole image."""
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    if FAMILIES[model_type].view == "any" and model_type != "idefics2":
        images = [image.resize((SIDE, SIDE), processor.resample) for image in images]
    if {"pixel_attention_mask", "aspect_ratio_mask"} & set(FAMILIES[model_type].inputs):
        images = [[image] for image in images]
    return outputs(processor(images, return_tensors="pt", **SETTINGS.get(model_type, {}), **settings))


def load(model_type, folder):
    return load_preprocessor(folder, image_size=SIDE if model_type in NEEDS_SIDE else None)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_pixel_inputs_equal_the_image_processors(tmp_path, model_type):
    save_config(model_type, tmp_path)
    images = noise_images()
    preprocessor = load(model_type, tmp_path)
    found = preprocessor.normalise(preprocessor.prepare(images))
    wanted = by_transformers(model_type, tmp_path, images)
    assert tuple(found) == preprocessor.inputs
    if FAMILIES[model_type].view == "base":  # the first of its views is the whole image
        wanted = {"pixel_values": wanted["pixel_values"][:, :1]}
    if FAMILIES[model_type].own_view == "budget":  # which squares aren't padded to
        assert (wanted["image_position_ids"][:, 64:] == -1).all()
        wanted = {name: wanted[name][:, :64] for name in found}
    if model_type == "mllama":  # which is given empty tiles after the one
        assert (found["pixel_values"][:, :, 1:] == 0).all()
        assert found["aspect_ratio_mask"].tolist() == [[[1, 0, 0, 0]]] * len(images)
        found = {name: values[:, :, :1] if values.ndim > 2 else values for name, values in found.items()}
    for name in set(found) & set(wanted):
        assert found[name].shape == wanted[name].shape
        torch.testing.assert_close(found[name], wanted[name].to(found[name].dtype), rtol=0, atol=1e-6)


@pytest.mark.parametrize("model_type", CONFIGS)
def test_preparing_then_normalising_is_the_same_in_a_batch_as_one_by_one_and_after_pickling(tmp_path, model_type):
    save_config(model_type, tmp_path)
    preprocessor = load(model_type, tmp_path)
    again = pickle.loads(pickle.dumps(preprocessor))
    assert again == preprocessor
    images = noise_images(seed=1)
    together = preprocessor.prepare(images)["pixels"]
    assert together.dtype == torch.uint8
    assert together.shape == (len(images), SIDE, SIDE, 3)
    alone = torch.cat([again.prepare([image])["pixels"] for image in images])
    assert torch.equal(together, alone)


def test_normalising_leaves_the_bytes_as_they_are_and_rounds_last(tmp_path):
    save_config("qwen2_5_vl", tmp_path)
    preprocessor = load_preprocessor(tmp_path)
    batch = preprocessor.prepare(noise_images())
    before = batch["pixels"].clone()
    full = preprocessor.normalise(batch, "cpu", torch.float32)["pixel_values"]
    half = preprocessor.normalise(batch, "cpu", torch.bfloat16)["pixel_values"]
    assert torch.equal(batch["pixels"], before)
    assert torch.equal(half, full.to(torch.bfloat16))


def with_positions_up_to(side, folder):
    """The vision tower of a saved configuration, with position embeddings for larger images."""
    content = json.loads((folder / "config.json").read_text())
    content["vision_config"]["image_size"] = side
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("model_type", ["idefics2", "idefics3", "qwen2_vl", "mistral3"])
def test_image_size_sets_the_side_where_the_family_takes_any(tmp_path, model_type):
    save_config(model_type, tmp_path)
    with_positions_up_to(96, tmp_path)
    preprocessor = load_preprocessor(tmp_path, image_size=96)
    assert preprocessor.input_size == (96, 96)
    assert preprocessor.grid == (12, 12)
    assert preprocessor.prepare(noise_images())["pixels"].shape == (len(SIZES), 96, 96, 3)


def test_resized_sides_are_rounded_as_the_processors_round_them(tmp_path):
    save_config("llava", tmp_path / "llava", size=336, patch=14)
    save_config("idefics3", tmp_path / "idefics3")
    with_positions_up_to(336, tmp_path / "idefics3")
    shortest, longest = load_preprocessor(tmp_path / "llava"), load_preprocessor(tmp_path / "idefics3", image_size=336)
    rng = np.random.default_rng(2)
    for width, height in rng.integers(1, 2000, (500, 2)).tolist():
        image = np.broadcast_to(np.uint8(0), (3, height, width))
        wanted = image_transforms.get_resize_output_image_size(
            image, 336, default_to_square=False, input_data_format="channels_first"
        )
        assert shortest._sizes(width, height) == [wanted]
        wanted = image_processing_pil_idefics3.get_resize_output_image_size(image, 336)
        assert longest._sizes(width, height) == [wanted, (336, 336)]


def test_an_image_that_is_not_rgb_is_named(tmp_path):
    save_config("llava", tmp_path)
    images = [*noise_images()[:2], Image.new("L", (30, 30))]
    with pytest.raises(ValueError, match="image 2 of the batch has mode L, not RGB"):
        load_preprocessor(tmp_path).prepare(images)


@pytest.mark.parametrize(
    ("model_type", "processor", "image_size", "message"),
    [
        ("mistral3", {}, None, "takes images of any size. Set the model's image_size .* a multiple of 16, say 336"),
        ("qwen2_vl", {"size": {"shortest_edge": 100, "longest_edge": 9000}}, None, "takes images of any size"),
        ("qwen2_vl", {"size": {"shortest_edge": 5000, "longest_edge": 5000}}, None, "takes images of any size"),
        ("qwen2_5_vl", {}, 100, "image_size 100 is not a multiple of 16, the side of 2 x 2 patches. Take 96 or 112"),
        ("idefics2", {}, 3, "image_size 3 is not a multiple of 8, the side of a patch. Take 8 or 16"),
        ("idefics2", {}, 136, "image_size 136 is more than 128, up to which its vision tower has .* Take 128 or less"),
        ("llava", {"crop_size": {"height": 56, "width": 56}}, None, "inputs of 56 x 56 pixels, its vision .* 64 x 64"),
        ("internvl", {"size": {"height": 72, "width": 72}}, None, "are 9 x 9 patches, which don't form squares of 2"),
        ("llava", {}, 336, "takes inputs of 64 x 64 pixels only, but image_size is 336. Leave image_size out"),
        ("llava", {"do_resize": False}, None, "do_resize: false, so inputs have no fixed size"),
        ("llava", {"do_center_crop": False}, None, "size is {'shortest_edge': 64} without a centre crop"),
        ("paligemma", {"size": {"longest_edge": 64}}, None, "size is {'longest_edge': 64} without a centre crop"),
    ],
)
def test_settings_that_give_no_fixed_square_input_are_refused(tmp_path, model_type, processor, image_size, message):
    save_config(model_type, tmp_path, processor=processor)
    with pytest.raises(LossmapError, match=message):
        load_preprocessor(tmp_path, image_size=image_size)


# Whatever else an image processor's settings ask for

LLAVA = {"image_processor_type": "LlavaImageProcessor", "do_pad": True}


@pytest.mark.parametrize(
    ("model_type", "processor"),
    [
        ("llava", LLAVA),
        ("llava", {**LLAVA, "do_center_crop": False}),
        ("llava", {**LLAVA, "size": {"shortest_edge": 75}, "resample": 2}),
        ("llava", {**LLAVA, "size": {"height": 64, "width": 64}, "image_mean": [0.5, 0.1, 0.9]}),
        ("llava", {**LLAVA, "do_normalize": False}),
        ("llava", {"do_pad": True}),  # CLIP's processor: to the largest of a batch
        ("llava", {"size": {"height": 80, "width": 64}}),
        ("llava", {"size": 70, "crop_size": 64}),  # as older checkpoints say it
        ("llava", {"size": {"shortest_edge": 33}, "do_convert_rgb": False}),
        ("llava", {"image_processor_type": "SiglipImageProcessor", "size": {"height": 64, "width": 64}}),
        ("llava", {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 73}}),
        ("llava", {"image_processor_type": "CLIPImageProcessorFast"}),
        ("llava", {"resample": 0, "do_rescale": False}),
        ("llava", {"do_normalize": False, "rescale_factor": 0.5}),
        ("paligemma", {"image_mean": 0.4, "image_std": 0.3}),
        ("gemma3", {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 16, "pan_and_scan_max_num_crops": 4}),
        ("llava_next", {"do_pad": False}),
        ("idefics2", {"do_pad": False}),
        ("qwen2_vl", {"resample": 1}),
    ],
)
def test_settings_off_the_default_are_followed(tmp_path, model_type, processor):
    """Reading the preprocessor compares it with the image processor; here on other images, by its unmodified class."""
    save_config(model_type, tmp_path, processor=processor)
    images = noise_images(seed=3)
    preprocessor = load(model_type, tmp_path)
    found = preprocessor.normalise(preprocessor.prepare(images))["pixel_values"]
    off = {"do_pan_and_scan": False} if model_type == "gemma3" else {}
    for i, image in enumerate(images):
        wanted = by_transformers(model_type, tmp_path, [image], **off)["pixel_values"]
        if FAMILIES[model_type].view == "base":
            wanted = wanted[:, :1]
        one = found.view(len(images), -1, *found.shape[1:])[i] if model_type == "qwen2_vl" else found[i : i + 1]
        torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-5)


def test_a_name_that_is_no_more_stands_for_the_familys_processor(tmp_path):
    save_config("qwen2_5_vl", tmp_path)
    today = load_preprocessor(tmp_path)
    save_config("qwen2_5_vl", tmp_path, processor={"image_processor_type": "Qwen2_5_VLImageProcessor"})
    assert load_preprocessor(tmp_path) == today


@pytest.mark.parametrize(
    ("model_type", "processor", "message"),
    [
        ("llava", {"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.9}, "by crop_pct: 0.9, which"),
        ("llava", {"do_pad": True, "pad_size": {"height": 80, "width": 80}}, "pad_size: .* Lossmap does not support"),
        (
            "llava",
            {"image_processor_type": "EfficientNetImageProcessor", "rescale_offset": True, "do_center_crop": True},
            "rescale_offset: True",
        ),
        (
            "llava",
            {"size": {"shortest_edge": 64, "longest_edge": 80}},
            "size is {'longest_edge': 80, .*, of which Lossmap makes no fixed size",
        ),
        ("gemma3", {"resample": 77}, r"settings fail on an image of 33 x 22 pixels \(ValueError: Unknown resampling"),
        (
            "llava",
            {"image_processor_type": "Cohere2VisionImageProcessor"},
            "is Cohere2VisionImageProcessor, which .* torchvision",
        ),
        ("llava", {"size": "large"}, "transformers can't load .*ValueError"),
        ("llava", {"image_processor_type": "Pix2StructImageProcessor"}, "settings fail on .*KeyError: 'pixel_values'"),
        ("qwen2_vl", {"patch_size": 4}, "makes other image_grid_thw of an image .* unlike config.json's"),
    ],
)
def test_settings_that_are_not_followed_are_named(tmp_path, model_type, processor, message):
    save_config(model_type, tmp_path, processor=processor)
    with pytest.raises(LossmapError, match=message):
        load(model_type, tmp_path)


def test_squashed_to_336_pixels_qwen_has_144_tokens_where_it_would_have_345(tmp_path):
    """The numbers that docs/families.md and the report tell."""
    save_config("qwen2_5_vl", tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"patch_size": 8', '"patch_size": 14'))
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    settings |= {"patch_size": 14, "size": {"shortest_edge": 3136, "longest_edge": 12845056}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    rows, cols = load_preprocessor(tmp_path, image_size=336).grid
    assert rows * cols // 4 == 144
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert processor.get_number_of_image_patches(427, 640) // 4 == 345


def test_margins_have_the_mean_colour_and_the_box_reaches_outside(tmp_path):
    save_config("llava", tmp_path, processor=LLAVA)
    preprocessor = load("llava", tmp_path)
    geometry = preprocessor.geometry(128, 64)  # a square of 128 with margins of 32, resized to 64
    assert geometry.box == (0, -32, 128, 96)
    assert geometry.patch_of_pixel(0, 0) == (2, 0)
    assert geometry.patch_of_pixel(127, 63) == (5, 7)
    pixels = preprocessor.prepare([Image.new("RGB", (128, 64), "white")])["pixels"][0]
    mean = [int(255 * value) for value in (0.48145466, 0.4578275, 0.40821073)]
    assert pixels[0, 0].tolist() == pixels[63, 63].tolist() == mean
    assert (pixels[17:47] == 255).all()
    assert preprocessor.geometry(33, 90).box == (-28, 0, 62, 90)  # (90 - 33) // 2 = 28 to the left, 29 to the right


@pytest.mark.parametrize("size", [(400_000, 1), (1, 70_000), (150_001, 2)])
@pytest.mark.parametrize("processor", [{}, LLAVA])
@pytest.mark.parametrize("resample", [3, 0])  # bicubic; the nearest pixel
def test_a_long_thin_image_takes_no_more_than_its_window(tmp_path, size, processor, resample):
    """Whole, 400,000 x 1 would be made 25,600,000 x 64, or 400,000 x 400,000."""
    save_config("llava", tmp_path, processor={**processor, "resample": resample})
    preprocessor = load("llava", tmp_path)
    colours = np.zeros((size[1], size[0], 3), dtype=np.uint8) + np.array([200, 10, 90], dtype=np.uint8)
    pixels = preprocessor.prepare([Image.fromarray(colours)])["pixels"][0]
    seen = pixels if not processor else pixels[32:33, 32:33]
    wanted = [200, 10, 90] if not processor else [122, 116, 104]
    assert (seen == torch.tensor(wanted, dtype=torch.uint8)).all()


# Processors with a tokenizer, less their video part


def small_tokenizer():
    specials = ["<unk>", "<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    vocabulary = {token: i for i, token in enumerate([*specials, "what"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<|endoftext|>",
        additional_special_tokens=specials[2:],
        extra_special_tokens={"image_token": "<|image_pad|>"},
    )


@pytest.mark.parametrize(
    ("model_type", "processor_class"), [("qwen2_vl", Qwen2VLProcessor), ("qwen2_5_vl", Qwen2_5_VLProcessor)]
)
def test_a_video_familys_processor_saves_and_loads_without_its_video_part(tmp_path, model_type, processor_class):
    save_config(model_type, tmp_path)
    image_processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    made = image_processor_only(processor_class)(image_processor, small_tokenizer(), chat_template="{{ messages }}")
    made.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "processor_config.json").read_text())["processor_class"] == processor_class.__name__
    loaded = load_processor(tmp_path)
    assert isinstance(loaded, processor_class)
    assert loaded.image_processor.backend == "pil"
    assert loaded.chat_template == "{{ messages }}"
    image = Image.new("RGB", (SIDE, SIDE), "red")
    text = ["<|vision_start|> <|image_pad|> <|vision_end|> what"]
    inputs = [processor(images=[image], text=text, return_tensors="pt") for processor in (made, loaded)]
    assert torch.equal(inputs[0]["input_ids"], inputs[1]["input_ids"])
    assert (inputs[1]["input_ids"] == loaded.image_token_id).sum() == (SIDE // 8 // 2) ** 2
    wanted = by_transformers(model_type, tmp_path, [image])["pixel_values"]
    assert torch.equal(inputs[1]["pixel_values"], wanted)


def test_a_processor_without_video_part_stays_itself():
    assert image_processor_only(LlavaProcessor) is LlavaProcessor


def test_a_model_without_a_vision_encoder_is_named(tmp_path):
    save_config("gemma4", tmp_path)
    content = json.loads((tmp_path / "config.json").read_text()) | {"vision_config": None}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(LossmapError, match="gemma4.*: its config.json has no vision_config: it sees no images"):
        load_preprocessor(tmp_path, view="processor")


def test_a_connector_that_draws_at_random_is_refused(tmp_path):
    save_config("ovis2", tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["vision_config"]["tokenize_function"] = "gumbel_argmax"
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(
        LossmapError, match="tokenize_function: gumbel_argmax, which draws tokens at random. Set softmax"
    ):
        load_preprocessor(tmp_path)
