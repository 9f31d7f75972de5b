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
from lossmap.miniature.build import IMAGE, MODELS, PATCH, WIDTH, build
from lossmap.miniature.card import card
from lossmap.miniature.evaluate import digits_named, generate, question_alone_scores, question_scores
from lossmap.miniature.examples import cached_features, draw_examples
from lossmap.miniature.scenes import SHAPES, digit_pool, draw_scene
from lossmap.miniature.text import Encoder, answered
from lossmap.miniature.train import RECIPES, Trainer
from lossmap.miniature.vision import TrainableVision, patch_places, patch_targets
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
@pytest.mark.parametrize("shape", sorted(set(SHAPES)))
@torch.no_grad()
def test_tower_and_connector_make_what_the_language_model_is_given(untrained, name, shape):
    model, processor = untrained[name]
    scenes = pictures(3, shape=shape)
    vision = TrainableVision(model, processor)
    layout = vision.layout(shape[1], shape[0])
    features = vision.features(vision.pixels([scene.image for scene in scenes]), layout.shape)
    post = vision.connect(features, layout.shape)
    images = [[Image.fromarray(scene.image)] for scene in scenes]
    ordinary = processor.image_processor(images=images, return_tensors="pt")
    taken = {key: ordinary[key] for key in vision.side.family.inputs}
    made = model.model.get_image_features(**taken).pooler_output
    expected = made if torch.is_tensor(made) else torch.cat([part.flatten(0, -2) for part in made])
    assert post.shape == (3, layout.shape.tokens, WIDTH)
    assert torch.allclose(post.flatten(0, 1), expected.reshape(-1, WIDTH), atol=1e-6)


def test_gradients_reach_the_tower_and_the_connector_alone(untrained):
    model, processor = build("internvl", language.vocabulary(), 0)
    vision = TrainableVision(model, processor)
    layout = vision.layout(112, 84)
    features = vision.features(vision.pixels([pictures(1, shape=(84, 112))[0].image]), layout.shape)
    vision.connect(features, layout.shape).square().sum().backward()
    reached = {id(p) for p in model.parameters() if p.grad is not None}
    tower, connector = vision.tower_parameters(), vision.connector_parameters()
    assert {id(p) for p in connector} <= reached <= {id(p) for p in [*tower, *connector]}
    assert not {id(p) for p in tower} & {id(p) for p in connector}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_changed_patch_changes_its_own_row_most(untrained, name):
    vision = TrainableVision(*untrained[name])
    image = pictures(1, shape=(96, 96))[0].image[:IMAGE, :IMAGE]
    layout = vision.layout(IMAGE, IMAGE)
    for patch in (0, 13, 50):
        other = image.copy()
        left, top, right, bottom = layout.patch_boxes[patch].round().astype(int)
        other[top:bottom, left:right] = 255
        before, after = vision.features(vision.pixels([image, other]), layout.shape)
        assert (after - before).norm(dim=-1).argmax() == patch


def ink_of(vision, layout, scene):
    """(patches,): how much ink of its digits a scene's patches hold, as the model is given them."""
    shown = vision.pixels([np.repeat(scene.masks.any(0)[..., None], 3, 2).astype(np.uint8) * 255])
    views = [values[0].float().mean(-1) for name, values in shown.items() if name != "sizes"]
    return torch.cat([torch.nn.functional.avg_pool2d(view[None], PATCH).flatten() for view in views]).numpy()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", sorted(set(SHAPES)))
def test_patch_targets_lie_where_the_model_sees_the_ink(untrained, name, shape):
    vision = TrainableVision(*untrained[name])
    layout = vision.layout(shape[1], shape[0])
    inside, outside = [], []
    for scene in pictures(20, shape=shape):
        ink, target = ink_of(vision, layout, scene), patch_targets(layout, scene.digits)[:, 0] > 0
        inside.append(ink[target].sum())
        outside.append(ink[~target].sum())
    assert sum(inside) > 20 * sum(outside)


def test_places_of_patches_are_rows_and_columns_of_their_views(untrained):
    shape = TrainableVision(*untrained["internvl"]).layout(96, 96).shape
    places = patch_places(shape)
    assert places.shape == (80, 2)
    assert places[:6].tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1]]
    assert places[16].tolist() == [0, 0]


def test_a_batch_is_of_one_layout_and_all_scenes_are_drawn(untrained):
    examples = draw_examples(TrainableVision(*untrained["qwen2_5_vl"]), "held-out", 60, 0)
    assert sorted(np.concatenate([alike.rows for alike in examples.groups])) == list(range(60))
    rng, seen = np.random.default_rng(0), [set() for _ in examples.groups]
    for _ in range(400):
        group, positions = examples.drawn(rng, 8)
        seen[group] |= set(positions.tolist())
    assert [len(found) for found in seen] == [len(alike.rows) for alike in examples.groups]
    shapes = [(alike.layout.height, alike.layout.width) for alike in examples.groups]
    assert len(set(shapes)) == 3


@pytest.mark.parametrize("name", MODELS)
def test_prompts_are_tokenised_as_the_processor_does_it(untrained, name):
    _, processor = untrained[name]
    scenes, rng = pictures(3, shape=(84, 112)), np.random.default_rng(0)
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
    images = [[Image.fromarray(s.image)] for s in scenes]
    inputs = processor(images=images, text=texts, padding=True, return_tensors="pt")
    layout = TrainableVision(*untrained[name]).layout(112, 84)
    batch = Encoder(processor)(layout, prompts, [""] * 3)
    for key in ("image_grid_thw", "mm_token_type_ids"):
        assert (key in inputs) == (key in batch.further)
    if "image_grid_thw" in inputs:
        assert torch.equal(batch.further["image_grid_thw"], inputs["image_grid_thw"])
        assert torch.equal(batch.further["mm_token_type_ids"][:, :-1], inputs["mm_token_type_ids"])
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
    with pytest.raises(
        LossmapError, match="no miniature model 'clip'. Choose one of llava, idefics2, qwen2_5_vl, internvl"
    ):
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


def seen_by_transformers_alone(name, inputs):
    """The inputs that a process makes of one picture, which knows nothing of Lossmap, and without torchvision."""
    code = (
        "import sys, numpy as np; from PIL import Image; "
        "from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer; "
        "image = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)); "
        f"inputs = {inputs}; "
        "print({key: values.tolist() for key, values in inputs.items()})"
    )
    command = [sys.executable, "-c", code, str(ZOO / name), asked(name)]
    return ast.literal_eval(subprocess.run(command, capture_output=True, text=True, cwd=ZOO, check=True).stdout)


def asked(name):
    content = [{"type": "image"}, {"type": "text", "text": "What digit is this?"}]
    return load_processor(ZOO / name).apply_chat_template([{"role": "user", "content": content}], tokenize=False)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "internvl"])
def test_a_shipped_checkpoint_loads_with_transformers_alone(name):
    given = "images=[image], text=[sys.argv[2]], return_tensors='np'"
    theirs = seen_by_transformers_alone(name, f"AutoProcessor.from_pretrained(sys.argv[1])({given})")
    image = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))
    ours = load_processor(ZOO / name)(images=[image], text=[asked(name)], return_tensors="np")
    assert theirs == {key: values.tolist() for key, values in ours.items()}


def test_the_shipped_internvl_loads_without_its_processor_whose_video_part_needs_torchvision():
    image = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))
    ours = load_processor(ZOO / "internvl")
    pixels = seen_by_transformers_alone(
        "internvl", "AutoImageProcessor.from_pretrained(sys.argv[1])(images=[image], return_tensors='np')"
    )
    assert pixels == {k: v.tolist() for k, v in ours.image_processor(images=[image], return_tensors="np").items()}
    words = seen_by_transformers_alone(
        "internvl", "AutoTokenizer.from_pretrained(sys.argv[1])([sys.argv[2]], return_tensors='np')"
    )
    assert words == {k: v.tolist() for k, v in ours.tokenizer([asked("internvl")], return_tensors="np").items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_answers_well_above_the_question_alone_and_not_perfectly(name):
    model, processor = load(name)
    scenes, rng = pictures(150, seed=1), np.random.default_rng(5)
    questions = [language.ask(scene, rng) for scene in scenes]
    prompts = [language.short_answer_prompt(q.text) for q in questions]
    said = generate(model, processor, [s.image for s in scenes], prompts, 5)
    right = [a == q.answer for a, q in zip(said, questions, strict=True)]
    training = [draw_scene(rng, digit_pool("training")) for _ in range(500)]
    alone = question_alone_scores(training, scenes, np.random.default_rng(5), rng)["all"]
    assert 0.6 <= np.mean(right) <= 0.97
    assert np.mean(right) > alone + 0.25


@pytest.mark.parametrize("name", MODELS)
def test_what_is_scored_is_what_is_generated(name):
    """`answered` needs one forward pass: it must agree with greedy generation, right or wrong."""
    model, processor = load(name)
    scenes, rng = pictures(40, seed=2), np.random.default_rng(6)
    questions = [language.ask(scene, rng) for scene in scenes]
    prompts = [language.short_answer_prompt(q.text) for q in questions]
    said = generate(model, processor, [s.image for s in scenes], prompts, 5)
    vision, encoder = TrainableVision(model, processor), Encoder(processor)
    for scene, question, prompt, text in zip(scenes, questions, prompts, said, strict=True):
        layout = vision.layout(scene.image.shape[1], scene.image.shape[0])
        with torch.no_grad():
            post = vision.connect(vision.features(vision.pixels([scene.image]), layout.shape), layout.shape)
        found = answered(model, post, encoder(layout, [prompt], [question.answer]))
        assert found.tolist() == [text == question.answer]


@pytest.mark.parametrize("name", MODELS)
def test_a_shipped_model_describes_what_it_sees(name):
    model, processor = load(name)
    scenes = pictures(20, seed=3)
    prompts = [language.CAPTION_PROMPTS[i % 2] for i in range(20)]
    said = generate(model, processor, [s.image for s in scenes], prompts)
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
    vision = TrainableVision(model, processor)
    examples = draw_examples(vision, "held-out", 20, 0)
    features = cached_features(vision, examples)
    scores = question_scores(model, vision, Encoder(processor), examples, features, np.random.default_rng(0))
    assert set(scores) <= {"all", *language.KINDS}
    assert scores["all"] <= 0.2  # untrained
