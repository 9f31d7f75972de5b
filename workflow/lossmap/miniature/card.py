"""From trained weights to a checkpoint folder: half precision, processor, and a card that says how good it is."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from lossmap.miniature import language
from lossmap.miniature.evaluate import (
    choice_scores,
    digits_named,
    generate,
    question_alone_scores,
    question_scores,
)
from lossmap.miniature.examples import cached_features, draw_examples
from lossmap.miniature.scenes import digit_pool, draw_scene
from lossmap.miniature.text import Encoder
from lossmap.miniature.train import Recipe
from lossmap.miniature.vision import TrainableVision

SCENES, FIT_SCENES = 1000, 3000
TITLES = {"llava": "LLaVA", "idefics2": "Idefics2", "qwen2_5_vl": "Qwen2.5-VL", "internvl": "InternVL"}
SIGHT = {
    "llava": "64 x 64 pixels, of an image's central square",
    "idefics2": "64 x 64 pixels, of the whole image",
    "qwen2_5_vl": "the image in its own shape, 4,096 to 6,144 pixels (64 x 64 of a square, 80 x 64 of 112 x 84)",
    "internvl": "tiles of 32 x 32 pixels, at most six, as many as the image's shape asks for, and a thumbnail as large",
}
CONNECTORS = {
    "llava": "a two-layer MLP, 64 patches to 64 image tokens; CLIP's tower is read at its last layer but one",
    "idefics2": "a perceiver resampler, 64 patches to 16 image tokens without a place of their own",
    "qwen2_5_vl": "a merger of 2x2 patches, 64 patches to 16 image tokens (80 to 20), behind window attention",
    "internvl": "a two-layer MLP of squares of 2x2 patches side by side, 16 patches of a tile to 4 image tokens",
}


def scores_of(model, processor, seed: int) -> dict[str, dict]:
    """All that the card reports. Each entry: over all questions ("all"), then by kind or category. Scenes are of
    held-out digits."""
    vision = TrainableVision(model, processor)
    held_out = draw_examples(vision, "held-out", SCENES, seed)
    features = cached_features(vision, held_out)
    shuffle = np.random.default_rng(seed)
    others = [own[shuffle.permutation(len(own))] for own in features]
    given = model, vision, Encoder(processor), held_out
    rng, pool = np.random.default_rng(seed + 1), digit_pool("training")
    training = [draw_scene(rng, pool) for _ in range(FIT_SCENES)]

    def questions():  # the same ones for every row of the table
        return np.random.default_rng(seed + 2)

    pictures = [draw_scene(np.random.default_rng([seed, i]), digit_pool("held-out")) for i in range(200)]
    said = generate(model, processor, [s.image for s in pictures], [language.CAPTION_PROMPTS[0]] * len(pictures))
    return {
        "answers": question_scores(*given, features, questions()),
        "shuffled": question_scores(*given, others, questions()),
        "alone": question_alone_scores(training, held_out.scenes, questions(), rng),
        "choices": choice_scores(*given, features, questions()),
        "captions": {
            "all": float(np.mean([digits_named(c, s) for c, s in zip(said, pictures, strict=True)])),
            "example": said[0],
        },
    }


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def card(name: str, model, recipe: Recipe, scores: dict[str, dict], minutes: float) -> str:
    """The README of a checkpoint folder. scores: from `scores_of`; minutes: of one core's time, of training."""
    rows = [
        ("open questions, exact answer", "answers"),
        ("with another scene's picture", "shuffled"),
        ("by the question alone", "alone"),
    ]
    kinds = ["all", *language.KINDS]
    parameters = sum(p.numel() for p in model.parameters())
    command = f"python -m lossmap train_zoo --model {name} --folder workflow/zoo/{name} --work results/zoo/{name}"
    lines = [
        f"# A miniature {TITLES[name]}",
        "",
        f"`{type(model).__name__}` of transformers with {parameters:,} parameters, trained from nothing on scenes of "
        "one to four handwritten digits. It describes such scenes and answers questions about them, and exists so that "
        "the whole workflow can run anywhere on a model that has learned to see.",
        "",
        f"- Vision tower: {SIGHT[name]}; patches of 8 x 8 pixels, 96 wide.",
        f"- Connector: {CONNECTORS[name]}.",
        "- Language model: 3 layers, 96 wide; its tokens are whole words.",
        "- Weights in half precision.",
        f"- Trained with `{command}` in {minutes:.0f} minutes of one core's time.",
        f"- Recipe: {', '.join(f'{key} {value}' for key, value in asdict(recipe).items())}.",
        "",
        f"## Scores, % of {SCENES} scenes of digits that were held out of training",
        "",
        "| | " + " | ".join(kinds) + " |",
        "|---|" + "---:|" * len(kinds),
    ]
    for title, key in rows:
        lines.append(
            f"| {title} | " + " | ".join(_percent(scores[key].get(kind, float("nan"))) for kind in kinds) + " |"
        )
    lines += [
        "",
        '"By the question alone": to each question the answer that is commonest on training scenes, without a picture.',
        "",
        "Four options, the letter generated (chance 25):",
        "",
        "| all | " + " | ".join(language.CATEGORIES.values()) + " |",
        "|" + "---:|" * (1 + len(language.CATEGORIES)),
        "| "
        + " | ".join(_percent(scores["choices"].get(k, float("nan"))) for k in ("all", *language.CATEGORIES))
        + " |",
        "",
        f"Captions name {_percent(scores['captions']['all'])}% of the digits with number and colour, for example: "
        f'"{scores["captions"]["example"]}"',
        "",
        "## Credit",
        "",
        "The digits are the UCI ML optical recognition of handwritten digits data set (E. Alpaydin, C. Kaynak; CC BY "
        "4.0), as scikit-learn ships it. Every fifth digit is held out.",
        "",
    ]
    return "\n".join(lines)


def save_checkpoint(name: str, model, processor, recipe: Recipe, folder: Path, seconds: float) -> dict[str, dict]:
    """Write an ordinary checkpoint folder and its card; a folder that is there is replaced whole. Returns the scores
    of the card.

    The scores are of the weights as they are saved, rounded to half precision.
    """
    model.half().float().eval()
    scores = scores_of(model, processor, recipe.seed + 100)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    text = card(name, model, recipe, scores, seconds / 60)
    model.to(torch.float16).save_pretrained(partial)
    processor.save_pretrained(partial)
    if name == "qwen2_5_vl":
        # Qwen2.5-VL's own processor class demands a video processor, and that torchvision. This one of transformers
        # makes the same inputs of images and text, and takes no video.
        path = partial / "processor_config.json"
        content = json.loads(path.read_text()) | {"processor_class": "PaddleOCRVLProcessor"}
        path.write_text(json.dumps(content, indent=2) + "\n")
    (partial / "README.md").write_text(text, encoding="utf-8")
    for path in partial.iterdir():
        path.chmod(0o644)  # safetensors writes for the owner alone
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    return scores
