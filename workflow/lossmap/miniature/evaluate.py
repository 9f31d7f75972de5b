"""What a miniature model knows: answers to questions about scenes of digits that it has never seen."""

import re
from collections import Counter, defaultdict

import numpy as np
import torch
from PIL import Image

from lossmap.miniature import language
from lossmap.miniature.examples import Examples
from lossmap.miniature.scenes import Scene
from lossmap.miniature.text import Encoder, answered
from lossmap.miniature.vision import TrainableVision

BATCH = 50


def _mean_by(keys: list, right: list[bool]) -> dict:
    """Accuracy over all, then by key."""
    by = defaultdict(list)
    for key, value in zip(keys, right, strict=True):
        by[key].append(value)
    return {"all": float(np.mean(right)), **{key: float(np.mean(by[key])) for key in sorted(by)}}


def _right(
    model,
    vision: TrainableVision,
    encoder: Encoder,
    examples: Examples,
    features,
    prompts: list[str],
    answers: list[str],
) -> list[bool]:
    """Whether each answer is exactly what the model generates, greedily."""
    found = np.zeros(len(prompts), bool)
    for alike, own in zip(examples.groups, features, strict=True):
        for i in range(0, len(own), BATCH):
            rows = alike.rows[i : i + BATCH]
            batch = encoder(alike.layout, [prompts[row] for row in rows], [answers[row] for row in rows])
            found[rows] = answered(model, vision.connect(own[i : i + BATCH], alike.layout.shape), batch).numpy()
    return found.tolist()


def question_scores(model, vision, encoder, examples: Examples, features, rng: np.random.Generator) -> dict[str, float]:
    """Share of open questions, one a scene, answered exactly: all, then by kind. features: from `cached_features`."""
    asked = [language.ask(scene, rng) for scene in examples.scenes]
    prompts = [language.short_answer_prompt(question.text) for question in asked]
    right = _right(model, vision, encoder, examples, features, prompts, [question.answer for question in asked])
    return _mean_by([question.kind for question in asked], right)


def choice_scores(model, vision, encoder, examples: Examples, features, rng: np.random.Generator) -> dict[str, float]:
    """Share of four-option questions, one a scene, answered with the right letter: all, then by category."""
    asked = [language.ask_choice(scene, rng) for scene in examples.scenes]
    prompts = [language.choice_prompt(choice.text, choice.options) for choice in asked]
    letters = [language.LETTERS[choice.answer] for choice in asked]
    right = _right(model, vision, encoder, examples, features, prompts, letters)
    return _mean_by([choice.category for choice in asked], right)


def question_alone_scores(
    training: list[Scene], held_out: list[Scene], rng, fit_rng, rounds: int = 5
) -> dict[str, float]:
    """What answering by the question's words alone would score: to each question its commonest answer on training
    scenes.

    rng: as given to `question_scores`, for the same questions; fit_rng: for those on the training scenes, `rounds` a
    scene.
    """
    said: dict[str, Counter[str]] = defaultdict(Counter)
    for scene in training:
        for _ in range(rounds):
            question = language.ask(scene, fit_rng)
            said[question.text][question.answer] += 1
    asked = [language.ask(scene, rng) for scene in held_out]
    guesses = [said[q.text].most_common(1)[0][0] if q.text in said else language.UNANSWERABLE for q in asked]
    return _mean_by([q.kind for q in asked], [guess == q.answer for guess, q in zip(guesses, asked, strict=True)])


@torch.no_grad()
def generate(model, processor, images: list[np.ndarray], prompts: list[str], length: int = 60) -> list[str]:
    """What the model says to each picture and prompt, greedily, at most `length` tokens, the ordinary way: pixels in,
    words out."""
    said = []
    for i in range(0, len(prompts), BATCH):
        part = slice(i, i + BATCH)
        texts = [
            processor.apply_chat_template(
                [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}],
                add_generation_prompt=True,
                tokenize=False,
            )
            for prompt in prompts[part]
        ]
        pictures = [[Image.fromarray(image)] for image in images[part]]
        inputs = processor(images=pictures, text=texts, padding=True, return_tensors="pt")
        made = model.generate(**inputs, max_new_tokens=length, do_sample=False)
        said += processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in said]


def digits_named(caption: str, scene: Scene) -> float:
    """Share of a scene's digits that a caption names rightly: their number and their colour, as often as they are
    there."""
    words = Counter(re.findall(r"\w+", caption.lower()))
    named = 0
    for digit in scene.digits:
        if words[digit.number] and words[digit.colour]:
            words[digit.number] -= 1
            named += 1
    return named / len(scene.digits)
