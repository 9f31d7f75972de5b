"""Texts from stored embeddings: those of the ordinary path, token by token, for every family; every refusal."""

from functools import cache
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_loading import COMMIT, Hub
from tiny_models import NEEDS_SIDE, SIDE
from tiny_processors import edit_json, save_speaking
from transformers import AutoModelForImageTextToText

from lossmap.errors import LossmapError
from lossmap.miniature import language as miniature
from lossmap.miniature.scenes import digit_pool, draw_scene
from lossmap.vlm.generation import load_language_side
from lossmap.vlm.loading import load_vision_side
from lossmap.vlm.processors import load_processor
from lossmap.vlm.prompts import CAPTION, answer_prompt, caption_prompt, choice_prompt

ZOO = Path(__file__).parents[1] / "workflow/zoo"
MAIN = ["llava", "idefics2", "qwen2_5_vl"]
SIDES = {"qwen2_5_vl": 64}  # of the square, of one that takes any
FAMILIES = [
    *MAIN,
    "llava_next",
    "llava_onevision",
    "paligemma",
    "gemma3",
    "gemma4",
    "ovis2",
    "aya_vision",
    "internvl",
    "idefics3",
    "qwen2_vl",
    "qwen3_vl",
    "smolvlm",
    "mistral3",
    "qwen3_vl_moe",
    "qwen3_5",
    "qwen3_5_moe",
    "exaone4_5",
    "glm4v",
    "glm4v_moe",
    "glm46v",
    "glm_ocr",
    "lighton_ocr",
    "vipllava",
    "deepseek_vl",
    "janus",
]
ASKED = ["What is in this image ?", "Which one ?", "What is in this image ? red green answer ."]


@cache
def language_side(name):
    return load_language_side(ZOO / name, image_size=SIDES.get(name))


@cache
def vision_side(name):
    return load_vision_side(ZOO / name, image_size=SIDES.get(name))


@cache
def whole(name):
    model = AutoModelForImageTextToText.from_pretrained(ZOO / name, dtype=torch.float32).eval()
    processor = load_processor(ZOO / name)
    processor.tokenizer.padding_side = "left"
    return model, processor


@cache
def scenes(n):
    rng = np.random.default_rng([5, n])
    drawn = [draw_scene(rng, digit_pool("held-out")) for _ in range(n)]
    questions = [answer_prompt(miniature.ask(scene, rng).text) for scene in drawn]
    return [Image.fromarray(scene.image) for scene in drawn], questions


def ordinary(name, images, prompts, most):
    """The usual way: processor, whole model, pixels in. Returns its text inputs and the new tokens."""
    model, processor = whole(name)
    if name != "llava":  # which crops; the others are shown squares
        images = [image.resize((64, 64), processor.image_processor.resample) for image in images]
    turns = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}] for prompt in prompts]
    texts = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    inputs = processor(images=[[image] for image in images], text=texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        made = model.generate(**inputs, max_new_tokens=most, do_sample=False, repetition_penalty=1.0)
    return inputs, made[:, inputs["input_ids"].shape[1] :].tolist()


def embedded(name, images):
    vision = vision_side(name)
    return vision.embed(vision.preprocessor.normalise(vision.preprocessor.prepare(images)))[1]


def trimmed(rows, end):
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


@pytest.mark.parametrize("name", MAIN)
def test_texts_are_those_of_the_ordinary_path_token_by_token(name):
    images, questions = scenes(14)
    assert len({image.size for image in images}) > 1
    language, post = language_side(name), embedded(name, images)
    for prompts, most in ((questions, 32), ([CAPTION[0]] * 14, 128)):
        inputs, expected = ordinary(name, images, prompts, most)
        encoded = language.encode(prompts, post.shape[1])
        assert encoded.keys() == {key for key in inputs if not key.startswith("pixel")}
        assert all(torch.equal(encoded[key], inputs[key]) for key in encoded)
        made = language.generate(prompts, post, most)
        assert made == trimmed(expected, language.processor.tokenizer.eos_token_id)
        assert len(set(map(len, made))) > 1
        usual = whole(name)[1].batch_decode(expected, skip_special_tokens=True)
        assert language.decode(made) == [text.strip() for text in usual]


@pytest.mark.parametrize("name", MAIN)
def test_half_precision_embeddings_give_the_same_answers(name):
    images, questions = scenes(60)
    post = embedded(name, images)
    single = language_side(name).generate(questions, post, 8)
    half = language_side(name).generate(questions, post.half(), 8)
    assert np.mean([a == b for a, b in zip(single, half, strict=True)]) >= 0.95


@pytest.mark.parametrize("name", MAIN)
def test_batches_and_their_padding_change_nothing(name):
    images, questions = scenes(14)
    language, post = language_side(name), embedded(name, images)
    prompts = [*questions[:7], *[CAPTION[0]] * 7]  # of very different lengths
    together = language.generate(prompts, post, 40)
    for size in (1, 7):
        parts = [slice(i, i + size) for i in range(0, 14, size)]
        apart = [row for part in parts for row in language.generate(prompts[part], post[part], 40)]
        assert apart == together


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_says_what_the_whole_model_says(tmp_path, model_type):
    model = save_speaking(model_type, tmp_path)
    side = {"image_size": SIDE} if model_type in NEEDS_SIDE else {}
    vision, language = load_vision_side(tmp_path, **side), load_language_side(tmp_path, **side)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in ASKED]
    pixels = vision.preprocessor.normalise(vision.preprocessor.prepare(images))
    post = vision.embed(pixels)[1]
    encoded = language.encode(ASKED, post.shape[1])
    assert (encoded["input_ids"] == 3).sum(1).tolist() == [post.shape[1]] * 3
    if vision.family.view == "base":
        model.config.image_grid_pinpoints = [[0, 0]]  # no tiles
    with torch.inference_mode():
        expected = model.generate(**{**encoded, **pixels}, max_new_tokens=6, do_sample=False)
    expected = expected[:, encoded["input_ids"].shape[1] :].tolist()
    assert language.generate(ASKED, post, 6) == trimmed(expected, 2)
    alone = [language.generate([prompt], post[i : i + 1], 6)[0] for i, prompt in enumerate(ASKED)]
    assert alone == trimmed(expected, 2)


def test_the_likeliest_token_counts_whatever_the_checkpoint_asks_for(tmp_path):
    save_speaking("qwen2_5_vl", tmp_path)
    post = torch.randn(3, 16, 48, generator=torch.Generator().manual_seed(0))
    expected = load_language_side(tmp_path).generate(ASKED, post, 8)
    settings = {"do_sample": True, "temperature": 9.0, "repetition_penalty": 3.0, "top_k": 5, "num_beams": 3}
    edit_json(tmp_path / "generation_config.json", no_repeat_ngram_size=1, max_new_tokens=2, **settings)
    assert load_language_side(tmp_path).generate(ASKED, post, 8) == expected


def test_a_text_ends_with_the_end_token_or_is_cut_off():
    images, _ = scenes(14)
    language, post = language_side("llava"), embedded("llava", images)
    end = language.processor.tokenizer.eos_token_id
    whole_texts = language.generate([CAPTION[0]] * 14, post, 128)
    assert all(row[-1] == end and row.count(end) == 1 for row in whole_texts)
    assert language.generate([CAPTION[0]] * 14, post, 3) == [row[:3] for row in whole_texts]


def test_a_text_of_nothing_but_its_end_is_empty():
    language = language_side("llava")
    assert language.decode([[language.processor.tokenizer.eos_token_id], []]) == ["", ""]


def test_what_is_not_a_number_is_no_answer():
    images, questions = scenes(14)
    language, post = language_side("idefics2"), embedded("idefics2", images).clone()
    post[3, 2, 5] = float("nan")
    inputs = language.encode(questions, post.shape[1])
    for ask in (
        lambda: language.generate(questions, post, 4),
        lambda: language.next_token(inputs, mm_encoder_outputs=language.image(post)),
    ):
        with pytest.raises(LossmapError, match="put out NaN: it overflowed, .* compute_dtype: bfloat16 or float32"):
            ask()


# Loading


@pytest.mark.parametrize("model_type", MAIN)
@pytest.mark.parametrize("spelling", ["saved", "hub", "nested"])
@pytest.mark.parametrize("shard", ["1GB", "40KB"])
def test_every_spelling_and_sharding_gives_the_same_language_model(tmp_path, model_type, spelling, shard):
    model = save_speaking(model_type, tmp_path, shard=shard, spelling=spelling)
    expected, loaded = model.state_dict(), load_language_side(tmp_path).model.state_dict()
    vision = ("model.vision", "model.multi_modal", "model.connector", "model.visual")
    assert loaded.keys() == {name for name in expected if not name.startswith(vision)}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.items())


@pytest.mark.parametrize("model_type", MAIN)
def test_no_tensor_of_the_vision_side_is_needed(tmp_path, model_type):
    save_speaking(model_type, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    first = load_language_side(tmp_path)
    kept = {key: tensor for key, tensor in tensors.items() if "vis" not in key and "projector" not in key}
    kept = {key: tensor for key, tensor in kept.items() if "connector" not in key}
    assert len(kept) < len(tensors) / 2
    save_file(kept, path, metadata={"format": "pt"})
    second = load_language_side(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))
    assert first.revision != second.revision  # other files


def test_from_the_hub_all_weights_come_and_the_commit_is_the_revision(tmp_path, monkeypatch):
    hub = Hub(tmp_path / "source", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    save_speaking("llava", hub.source, shard="40KB")
    language = load_language_side("owner/model", COMMIT)
    assert language.revision == COMMIT
    assert len(list(hub.cache.glob("*.safetensors"))) == len(list(hub.source.glob("*.safetensors")))
    assert language.revision != load_language_side(hub.source).revision
    assert load_language_side(hub.source).revision.startswith("sha256:")


def test_missing_and_misshapen_weights_are_named_never_made_up(tmp_path):
    save_speaking("idefics2", tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    lost = next(key for key in tensors if "text_model" in key and "q_proj" in key)
    save_file({key: tensor for key, tensor in tensors.items() if key != lost}, path, metadata={"format": "pt"})
    with pytest.raises(LossmapError, match=f"(?s){tmp_path}.*language side don't fit.*{lost}: missing.*random"):
        load_language_side(tmp_path)
    save_file({**tensors, lost: torch.zeros(7)}, path, metadata={"format": "pt"})
    with pytest.raises(LossmapError, match=f"{lost}: .*7.* not .*48"):
        load_language_side(tmp_path)


def test_what_cannot_speak_from_post_is_refused(tmp_path):
    save_speaking("qwen3_vl", tmp_path)
    with pytest.raises(LossmapError, match="dtype is 'int8'. Choose one of"):
        load_language_side(tmp_path, dtype="int8")
    several = "qwen3_vl language model is given features of several tower layers .*Set receives: all, or leave"
    with pytest.raises(LossmapError, match=several):
        load_language_side(tmp_path, receives="sequence")
    post = torch.zeros(3, 16, 48)  # of the merger alone
    fewer = "given 144 features of a token, .*have 48. They were made with receives: sequence.*extract them again"
    with pytest.raises(LossmapError, match=fewer):
        load_language_side(tmp_path).generate(ASKED, post, 3)
    save_speaking("llava", tmp_path / "llava")
    with pytest.raises(LossmapError, match="receives is sequence, but its language model is given nothing else"):
        load_language_side(tmp_path / "llava", receives="sequence")


def test_deepstack_reaches_the_language_model_bit_for_bit(tmp_path):
    model = save_speaking("qwen3_vl", tmp_path)
    vision, language = load_vision_side(tmp_path), load_language_side(tmp_path)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in ASKED]
    pixels = vision.preprocessor.normalise(vision.preprocessor.prepare(images))
    post = vision.embed(pixels)[1]
    encoded = language.encode(ASKED, post.shape[1])
    with torch.inference_mode():
        wanted = model(**{**encoded, **pixels}).logits
        assert torch.equal(language.model(**encoded, mm_encoder_outputs=language.image(post)).logits, wanted)
        post[..., -48:] = 0  # of the last of three connectors
        assert not torch.equal(language.model(**encoded, mm_encoder_outputs=language.image(post)).logits, wanted)


def test_a_checkpoint_without_tokenizer_is_named(tmp_path):
    save_speaking("llava", tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    with pytest.raises(
        LossmapError, match=f"{tmp_path}: has no tokenizer.json, which captions, answers and choices need"
    ):
        load_language_side(tmp_path)


def test_a_tokenizer_that_can_not_be_read_is_named(tmp_path):
    save_speaking("llava", tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(LossmapError, match=f"{tmp_path}: its processor can't be loaded, .* Add the tokenizer's files"):
        load_language_side(tmp_path)


# Prompts


def test_a_prompt_that_names_an_image_is_refused(tmp_path):
    save_speaking("llava", tmp_path)
    language = load_language_side(tmp_path)
    with pytest.raises(
        LossmapError, match="'Is <image> red \\?' becomes a text with 2 places .* marked <image>; wanted"
    ):
        language.encode(["Which one ?", "Is <image> red ?"], 64)


def test_embeddings_of_another_size_are_refused():
    with pytest.raises(LossmapError, match="llava: its processor leaves room for 64 vectors .* have 16.*extract"):
        language_side("llava").encode(["Which?"], 16)


def test_the_default_prompts_are_those_that_the_miniature_models_learned():
    assert caption_prompt("default", "llava") == (miniature.CAPTION_PROMPTS[0], 128)
    assert answer_prompt("What?") == miniature.short_answer_prompt("What?")
    assert choice_prompt("What?", ["a", "b", "c", "d"]) == miniature.choice_prompt("What?", ("a", "b", "c", "d"))


def test_the_papers_captions_differ_by_model():
    assert (
        caption_prompt("paper", "llava") == caption_prompt("paper", "idefics2") == (miniature.CAPTION_PROMPTS[1], 128)
    )
    prompt, tokens = caption_prompt("paper", "qwen2_5_vl")
    assert "Avoid explicit references to the image itself (e.g., 'This image shows...'," in prompt
    assert tokens == 50
    with pytest.raises(ValueError, match="wording is 'mine'; wanted 'default' or 'paper'"):
        caption_prompt("mine", "llava")


def test_options_are_lettered():
    text = choice_prompt("Which?", ["red", "green"])
    assert text == "Which?\nA. red\nB. green\nAnswer with the option's letter from the given choices directly.\n"
    for options in ([], ["one"], ["x"] * 27):
        with pytest.raises(ValueError, match=f"there are {len(options)} options; wanted 2 to 26"):
            choice_prompt("Which?", options)
