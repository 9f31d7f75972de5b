"""The miniature models: their parts in order, their training resumable, the shipped ones good and not too good."""

import ast
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from lossmap.errors import LossmapError
from lossmap.miniature import language
from lossmap.miniature.build import GRID, IMAGE, IMAGE_TOKENS, MODELS, PATCH, WIDTH, build
from lossmap.miniature.card import card
from lossmap.miniature.evaluate import digits_named, generate, question_alone_scores, question_scores
from lossmap.miniature.scenes import digit_pool, draw_scene
from lossmap.miniature.text import Encoder, answered
from lossmap.miniature.train import RECIPES, Trainer, cached_features, draw_examples
from lossmap.miniature.vision import connect, model_images, patch_order, patch_targets, pixel_tensors, tower_features
from lossmap.study.steps import train_zoo
from lossmap.vlm.processors import load_processor

ZOO = Path(__file__).parents[1] / "workflow/zoo"


@pytest.fixture(scope="module")
def untrained():
    return {name: build(name, language.vocabulary(), 0) for name in MODELS}


@cache
def load(name):
    return AutoModelForImageTextToText.from_pretrained(ZOO / name).float(), load_processor(ZOO / name)


def pictures(n, seed=0, **options):
    rng = np.random.default_rng([99, seed])
    return [draw_scene(rng, digit_pool("held-out"), **options) for _ in range(n)]


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_tower_and_connector_make_what_the_language_model_is_given(untrained, name):
    model, processor = untrained[name]
    pixels = pixel_tensors(name, processor, [s.image for s in pictures(3)])
    post = connect(name, model, tower_features(name, model, pixels))
    ordinary = processor.image_processor(images=model_images(name, [s.image for s in pictures(3)]), return_tensors="pt")
    expected = model.model.get_image_features(**ordinary).pooler_output
    assert post.shape == (3, IMAGE_TOKENS[name], WIDTH)
    assert torch.allclose(post, torch.stack(list(expected)), atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_changed_patch_changes_its_own_row_most(untrained, name):
    model, processor = untrained[name]
    image = pictures(1, shape=(96, 96))[0].image[:IMAGE, :IMAGE]
    order = patch_order(name, model)
    assert sorted(order.tolist()) == list(range(GRID * GRID))
    for patch in (0, 13, 50):
        other = image.copy()
        y, x = (PATCH * part for part in divmod(patch, GRID))
        other[y : y + PATCH, x : x + PATCH] = 255
        before, after = tower_features(name, model, pixel_tensors(name, processor, [image, other]))
        assert order[(after - before).norm(dim=-1).argmax()] == patch


@pytest.mark.parametrize(("name", "shape"), [("llava", (84, 112)), ("idefics2", (84, 112)), ("qwen2_5_vl", (112, 84))])
def test_patch_targets_lie_where_the_model_sees_the_ink(untrained, name, shape):
    _, processor = untrained[name]
    inside, outside = [], []
    for scene in pictures(20, shape=shape):
        shown = model_images(name, [np.repeat(scene.masks.any(0)[..., None], 3, 2).astype(np.uint8) * 255])
        pixels = processor.image_processor(images=shown, return_tensors="pt", do_normalize=False)["pixel_values"]
        if name == "qwen2_5_vl":
            rows = pixels.view(GRID // 2, GRID // 2, 2, 2, -1).permute(0, 2, 1, 3, 4).reshape(GRID * GRID, -1)
            ink = rows.mean(1)
        else:
            ink = torch.nn.functional.avg_pool2d(pixels.view(3, IMAGE, IMAGE).mean(0)[None], PATCH).flatten()
        target = torch.from_numpy(patch_targets(name, scene)[:, 0] > 0)
        inside.append(ink[target].sum())
        outside.append(ink[~target].sum())
    assert sum(inside) > 20 * sum(outside)


@pytest.mark.parametrize("name", MODELS)
def test_prompts_are_tokenised_as_the_processor_does_it(untrained, name):
    _, processor = untrained[name]
    scenes, rng = pictures(3), np.random.default_rng(0)
    choice = language.ask_choice(scenes[0], rng)
    prompts = [
        language.CAPTION_PROMPTS[0],
        language.short_answer_prompt(language.ask(scenes[1], rng).text),
        language.choice_prompt(choice.text, choice.options),
    ]
    texts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}],
            add_generation_prompt=True,
            tokenize=False,
        )
        for prompt in prompts
    ]
    inputs = processor(
        images=model_images(name, [s.image for s in scenes]), text=texts, padding=True, return_tensors="pt"
    )
    batch = Encoder(name, processor)(prompts, [""] * 3)
    assert torch.equal(batch.ids[:, :-1], inputs["input_ids"])
    assert torch.equal(batch.mask[:, :-1], inputs["attention_mask"])
    assert processor.tokenizer.unk_token_id not in batch.ids[batch.mask == 1]


@pytest.mark.parametrize("name", MODELS)
def test_sentences_survive_the_tokenizer(untrained, name):
    tokenizer = untrained[name][1].tokenizer
    for text in language.captions(pictures(1, n_digits=3)[0], np.random.default_rng(0), 6):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


TINY = replace(
    RECIPES["idefics2"],
    scenes=40,
    tower_steps=6,
    connector_steps=4,
    language_steps=6,
    choices_steps=4,
    tower_batch=4,
    language_batch=4,
    save_every=2,
)


def quiet(text):
    pass


def weights_after(work, stops):
    for stop in stops:
        trainer = Trainer("idefics2", TINY, work, quiet, watched=8)
        trainer.train(stop)
    return trainer.modules.state_dict()


def test_training_that_was_stopped_ends_where_undisturbed_training_does(tmp_path):
    whole = weights_after(tmp_path / "whole", [None])
    parts = weights_after(tmp_path / "parts", [("tower", 4), ("connector", 2), ("language", 2), ("choices", 2), None])
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_checkpoint_of_another_recipe_is_not_continued(tmp_path):
    Trainer("idefics2", TINY, tmp_path, quiet, watched=8).train(("tower", 2))
    with pytest.raises(LossmapError, match="written with other settings"):
        Trainer("idefics2", replace(TINY, seed=1), tmp_path, quiet).train()


def test_every_stage_trains_its_own_part_only(tmp_path):
    def towers(state):
        return {key: value.clone() for key, value in state.items() if "vision_model" in key}

    trainer = Trainer("idefics2", TINY, tmp_path, quiet, watched=8)
    fresh = {key: value.clone() for key, value in trainer.modules.state_dict().items()}
    trainer.train(("tower", 6))
    after = {key: value.clone() for key, value in trainer.modules.state_dict().items()}
    assert any(not torch.equal(fresh[key], after[key]) for key in towers(after))
    assert all(torch.equal(fresh[key], after[key]) for key in after if "text_model" in key or "connector" in key)
    rest = Trainer("idefics2", TINY, tmp_path, quiet, watched=8)
    rest.train()
    last = rest.modules.state_dict()
    assert all(torch.equal(after[key], last[key]) for key in towers(after))
    assert any(not torch.equal(after[key], last[key]) for key in after if "text_model" in key)


def test_a_model_that_there_is_not_is_named(tmp_path):
    with pytest.raises(LossmapError, match="no miniature model 'clip'. Choose one of llava, idefics2, qwen2_5_vl"):
        train_zoo.run(model="clip", folder=tmp_path / "a", work=tmp_path / "b")


def test_digits_named_by_hand():
    scene = pictures(1, n_digits=2)[0]
    a, b = scene.digits
    assert digits_named(f"A {a.colour} {a.number} and a {b.colour} {b.number}.", scene) == 1
    assert digits_named(f"A {a.colour} {a.number}.", scene) == 0.5
    assert digits_named("Nothing.", scene) == 0


def test_the_question_alone_tells_little():
    rng = np.random.default_rng(0)
    drawn = [draw_scene(rng, digit_pool("held-out")) for _ in range(400)]
    scores = question_alone_scores(drawn[:300], drawn[300:], np.random.default_rng(1), np.random.default_rng(2))
    assert 0.1 < scores["all"] < 0.4


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_checkpoint_is_small_ordinary_and_has_a_card(name):
    files = {path.name: path.stat().st_size for path in (ZOO / name).iterdir()}
    assert sum(files.values()) <= 2 * 2**20
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "README.md"} <= set(files)
    assert not [file for file in files if file.endswith((".bin", ".pt", ".pkl", ".py"))]
    model, _ = load(name)
    assert model.generation_config.do_sample in (None, False)
    text = (ZOO / name / "README.md").read_text()
    for needed in ("CC BY 4.0", "python -m lossmap train_zoo", "by the question alone", "minutes"):
        assert needed in text


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_checkpoint_loads_with_transformers_alone(name):
    """In a process that knows nothing of Lossmap, and without torchvision."""
    code = (
        "import sys, numpy as np; from PIL import Image; from transformers import AutoProcessor; "
        "processor = AutoProcessor.from_pretrained(sys.argv[1]); "
        "image = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)); "
        "inputs = processor(images=[image], text=[sys.argv[2]], return_tensors='np'); "
        "print({key: values.tolist() for key, values in inputs.items()})"
    )
    content = [{"type": "image"}, {"type": "text", "text": "What digit is this?"}]
    processor = load_processor(ZOO / name)
    text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    command = [sys.executable, "-c", code, str(ZOO / name), text]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ZOO, check=True)
    image = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))
    ours = processor(images=[image], text=[text], return_tensors="np")
    assert ast.literal_eval(done.stdout) == {key: values.tolist() for key, values in ours.items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_answers_well_above_the_question_alone_and_not_perfectly(name):
    model, processor = load(name)
    scenes, rng = pictures(150, seed=1), np.random.default_rng(5)
    asked = [language.ask(scene, rng) for scene in scenes]
    said = generate(
        name, model, processor, [s.image for s in scenes], [language.short_answer_prompt(q.text) for q in asked], 5
    )
    right = [a == q.answer for a, q in zip(said, asked, strict=True)]
    training = [draw_scene(rng, digit_pool("training")) for _ in range(500)]
    alone = question_alone_scores(training, scenes, np.random.default_rng(5), rng)["all"]
    assert 0.6 <= np.mean(right) <= 0.97
    assert np.mean(right) > alone + 0.25


@pytest.mark.parametrize("name", MODELS)
def test_what_is_scored_is_what_is_generated(name):
    """`answered` needs one forward pass: it must agree with greedy generation, right or wrong."""
    model, processor = load(name)
    scenes, rng = pictures(40, seed=2), np.random.default_rng(6)
    asked = [language.ask(scene, rng) for scene in scenes]
    prompts = [language.short_answer_prompt(q.text) for q in asked]
    said = generate(name, model, processor, [s.image for s in scenes], prompts, 5)
    features = cached_features(name, model, pixel_tensors(name, processor, [s.image for s in scenes]))
    found = answered(name, model, features, Encoder(name, processor)(prompts, [q.answer for q in asked]))
    assert found.tolist() == [a == q.answer for a, q in zip(said, asked, strict=True)]


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_describes_what_it_sees(name):
    model, processor = load(name)
    scenes = pictures(20, seed=3)
    prompts = [language.CAPTION_PROMPTS[i % 2] for i in range(20)]
    said = generate(name, model, processor, [s.image for s in scenes], prompts)
    assert np.mean([digits_named(text, scene) for text, scene in zip(said, scenes, strict=True)]) > 0.5
    assert all(text.endswith(".") and "<" not in text for text in said)


def test_a_card_holds_the_scores(untrained):
    model, _ = untrained["llava"]
    kinds = {"all": 0.8, **dict.fromkeys(language.KINDS, 0.5)}
    scores = {
        "answers": kinds,
        "shuffled": {**kinds, "all": 0.301},
        "alone": {**kinds, "all": 0.222},
        "choices": {"all": 0.4, **dict.fromkeys(language.CATEGORIES, 0.25)},
        "captions": {"all": 0.9, "example": "A red three."},
    }
    text = card("llava", model, RECIPES["llava"], scores, 12.4)
    for needed in ("| 80.0 |", "| 30.1 |", "| 22.2 |", "in 12 minutes of one core", '"A red three."'):
        assert needed in text


def test_scores_by_kind_average_to_the_whole(untrained):
    model, processor = untrained["llava"]
    examples = draw_examples("llava", model, processor, "held-out", 20, 0)
    features = cached_features("llava", model, examples.pixels)
    scores = question_scores(
        "llava", model, Encoder("llava", processor), examples.scenes, features, np.random.default_rng(0)
    )
    assert set(scores) <= {"all", *language.KINDS}
    assert scores["all"] <= 0.2  # untrained
