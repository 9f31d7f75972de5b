"""Training of one miniature model by stages: tower, connector, language. A killed run goes on where its last
checkpoint was.

1. tower: the vision tower alone, with a head that reads each patch's digit, colour, size, row and column (the last
   two keep position in the features);
2. connector, where it compresses: with a head that reads each corner's digit, colour and size from all of its output
   (without this stage a perceiver of 16 latents learns to count and nothing else);
3. language: connector and language model on captions and questions, the tower frozen, so that its output is computed
   once;
4. choices: the same, now mostly on four-option questions, among them ones that name the option they want.

Every step draws its examples from a generator seeded by (seed, stage, step): nothing but weights, optimiser and step
need saving.
"""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from lossmap.errors import LossmapError
from lossmap.miniature import language
from lossmap.miniature.build import WIDTH, build
from lossmap.miniature.evaluate import choice_scores, question_scores
from lossmap.miniature.examples import Alike, cached_features, draw_examples, picked
from lossmap.miniature.scenes import Scene
from lossmap.miniature.text import Encoder, answer_loss
from lossmap.miniature.vision import TrainableVision, patch_places

READ = (11, 9, 3)  # classes of digit, colour and size, "none" included


@dataclass(frozen=True)
class Recipe:
    """How a miniature model is trained. Rates are warmed up for 150 steps, then go down a cosine from the peak."""

    seed: int = 7_000_001  # the study draws its scenes from smaller seeds
    scenes: int = 16_000
    tower_steps: int = 2_000
    connector_steps: int = 1_500
    language_steps: int = 3_500
    choices_steps: int = 2_500
    tower_batch: int = 48
    language_batch: int = 32
    tower_peak: float = 2e-3
    connector_peak: float = 1.5e-3
    language_peak: float = 2e-3
    choices_peak: float = 1.5e-3
    caption_share: float = 0.2
    choice_share: float = 0.3  # of the batches of the last two thirds of the third stage
    save_every: int = 250


RECIPES = {
    "llava": Recipe(connector_steps=0),
    "idefics2": Recipe(),
    "qwen2_5_vl": Recipe(connector_steps=750),
    "internvl": Recipe(connector_steps=750),
}


def _rate(step: int, steps: int, peak: float) -> float:
    warm = min(1.0, (step + 1) / min(150, max(1, steps // 4)))
    return peak * warm * max(0.02, (1 + math.cos(math.pi * step / steps)) / 2)


class Checkpoint:
    """The one file of a run that can go on: weights, heads, optimiser, stage and step, written whole or not at all."""

    def __init__(self, path: Path, settings: dict):
        self.path, self.settings = path, json.dumps(settings, sort_keys=True)

    def progress(self) -> tuple[str, int, float]:
        """Stage, steps done in it, and seconds spent so far; ("", 0, 0) if there is no checkpoint."""
        if not self.path.exists():
            return "", 0, 0.0
        with safe_open(self.path, "pt") as file:
            said = file.metadata()
        if said["settings"] != self.settings:
            raise LossmapError(
                f"{self.path} was written with other settings:\n  there  {said['settings']}\n  wanted {self.settings}\n"
                "Remove it to train from the start."
            )
        return said["stage"], int(said["step"]), float(said["seconds"])

    def save(self, stage: str, step: int, seconds: float, modules: nn.ModuleDict, optimisers: list) -> None:
        tensors = {f"weights.{key}": value for key, value in modules.state_dict().items()}
        for n, optimiser in enumerate(optimisers):
            for i, state in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{n}.{i}.{key}": value for key, value in state.items()}
        said = {"stage": stage, "step": str(step), "seconds": str(seconds), "settings": self.settings}
        partial = self.path.with_suffix(".partial")
        save_file({key: value.clone() for key, value in tensors.items()}, partial, said)
        os.replace(partial, self.path)

    def load(self, modules: nn.ModuleDict, optimisers: list) -> None:
        tensors = load_file(self.path)
        modules.load_state_dict({key[8:]: value for key, value in tensors.items() if key.startswith("weights.")})
        states: list[dict[int, dict]] = [{} for _ in optimisers]
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, n, i, field = key.split(".")
                states[int(n)].setdefault(int(i), {})[field] = value
        for optimiser, state in zip(optimisers, states, strict=True):
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _read_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of digit, colour and (at a third) size. logits: (..., 23); targets: (..., 3)."""
    parts = logits.flatten(0, -2).split(READ, -1)
    losses = [F.cross_entropy(part, targets[..., i].flatten()) for i, part in enumerate(parts)]
    return losses[0] + losses[1] + 0.3 * losses[2]


def _read_accuracy(logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    shown = targets[..., 0] > 0
    parts = logits.split(READ, -1)
    return {
        name: (part.argmax(-1) == targets[..., i])[shown].float().mean().item()
        for i, (name, part) in enumerate(zip(("digit", "colour", "size"), parts, strict=True))
    }


@dataclass(frozen=True)
class Stage:
    """A part of the training: so many steps, to a peak rate, of these parameters alone. loss: of a generator and the
    share of the stage that is done; scores: on held-out digits."""

    name: str
    steps: int
    peak: float
    parameters: list[nn.Parameter]
    loss: Callable[[np.random.Generator, float], torch.Tensor]
    scores: Callable[[], dict[str, float]]


class Trainer:
    """One model on its way through the stages. train() leaves the trained weights in `self.model`.

    work: the folder of the checkpoint; say: told of every score on the way; watched: scenes of held-out digits that
    these scores are of.
    """

    def __init__(
        self, name: str, recipe: Recipe, work: Path, say: Callable[[str], None] = tqdm.write, watched: int = 300
    ):
        self.name, self.recipe, self.say, self.watched = name, recipe, say, watched
        work.mkdir(parents=True, exist_ok=True)
        self.model, self.processor = build(name, language.vocabulary(), recipe.seed)
        self.vision = TrainableVision(self.model, self.processor)
        shapes = [layout.shape for layout in self.vision.layouts]
        views = [view for shape in shapes for view in shape.views]
        self.rows, self.columns = max(view.rows for view in views), max(view.cols for view in views)
        torch.manual_seed(recipe.seed + 1)
        corners = [nn.Linear(WIDTH * shape.tokens, 4 * sum(READ)) for shape in shapes]
        self.heads = nn.ModuleDict(
            {
                "patch": nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, sum(READ) + self.rows + self.columns)),
                "corner": nn.ModuleList(corners),  # by layout
            }
        )
        self.modules = nn.ModuleDict({"model": self.model, "heads": self.heads})
        self.checkpoint = Checkpoint(work / "checkpoint.safetensors", {"model": name, **asdict(recipe)})
        self.encoder = Encoder(self.processor)

    def _stages(self) -> list[Stage]:
        recipe, tower = self.recipe, self.vision.tower_parameters()
        in_tower = {id(p) for p in tower}
        patch = [*tower, *self.heads["patch"].parameters()]
        corner = [*self.vision.connector_parameters(), *self.heads["corner"].parameters()]
        rest = [p for p in self.model.parameters() if id(p) not in in_tower]
        return [
            Stage("tower", recipe.tower_steps, recipe.tower_peak, patch, self._tower_loss, self._tower_scores),
            Stage(
                "connector",
                recipe.connector_steps,
                recipe.connector_peak,
                corner,
                self._connector_loss,
                self._connector_scores,
            ),
            Stage(
                "language",
                recipe.language_steps,
                recipe.language_peak,
                rest,
                self._language_loss,
                self._language_scores,
            ),
            Stage(
                "choices", recipe.choices_steps, recipe.choices_peak, rest, self._choices_loss, self._language_scores
            ),
        ]

    def train(self, until: tuple[str, int] | None = None) -> float:
        """Run all stages, or up to a step of one: (its name, steps). Returns the seconds of processor time spent
        in all, those before a restart included."""
        self.examples = draw_examples(self.vision, "training", self.recipe.scenes, self.recipe.seed)
        self.held_out = draw_examples(self.vision, "held-out", self.watched, self.recipe.seed + 1)
        self.model.train()
        stages = self._stages()
        names = [stage.name for stage in stages]
        reached, done, seconds = self.checkpoint.progress()
        for index, stage in enumerate(stages):
            if stage.steps == 0 or (reached and index < names.index(reached)):
                continue
            for p in self.model.parameters():
                p.requires_grad_(False)
            for p in stage.parameters:
                p.requires_grad_(True)
            optimisers = self._optimisers(stage)
            if stage.name == reached:
                self.checkpoint.load(self.modules, optimisers)
            if stage.name != "tower":
                self.features = cached_features(self.vision, self.examples)
                self.held_features = cached_features(self.vision, self.held_out)
            end = until[1] if until is not None and until[0] == stage.name else None
            steps = range(done if stage.name == reached else 0, stage.steps if end is None else end)
            seconds = self._run(index, stage, optimisers, steps, seconds)
            if end is not None:
                break
        self.model.eval()
        return seconds

    def _optimisers(self, stage: Stage) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of the blocks, AdamW for the rest: the tower needs half as many steps as with AdamW
        alone."""
        apart = ("embed", "latents", "lm_head")
        named = self.model.named_parameters()
        blocks = {id(p) for n, p in named if p.ndim == 2 and not any(part in n for part in apart)}
        matrices = [p for p in stage.parameters if id(p) in blocks]
        others = [p for p in stage.parameters if id(p) not in blocks]
        return [
            torch.optim.Muon(matrices, lr=stage.peak, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=stage.peak, weight_decay=0.05, betas=(0.9, 0.98)),
        ]

    def _run(self, index: int, stage: Stage, optimisers: list, steps: range, seconds: float) -> float:
        """Train for these steps of the stage. seconds: spent before; returns those spent in all."""
        began, mean = time.process_time() - seconds, None
        bar = tqdm(steps, f"{self.name} {stage.name}", initial=steps.start, total=stage.steps, mininterval=5)
        for step in bar:
            loss = stage.loss(np.random.default_rng([self.recipe.seed, index, step]), step / stage.steps)
            loss.backward()
            nn.utils.clip_grad_norm_(stage.parameters, 1.0)
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = _rate(step, stage.steps, stage.peak)
                optimiser.step()
                optimiser.zero_grad()
            mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
            if (step + 1) % self.recipe.save_every == 0 or step + 1 == steps.stop:
                scores = stage.scores()
                spent = time.process_time() - began
                self.checkpoint.save(stage.name, step + 1, spent, self.modules, optimisers)
                shown = " ".join(f"{key} {value:.3f}" for key, value in scores.items())
                self.say(f"{bar.desc} {step + 1}/{stage.steps}  {spent:.0f} s  loss {mean:.3f}  held-out: {shown}")
                bar.set_postfix(loss=f"{mean:.3f}", held_out=f"{next(iter(scores.values())):.3f}")
        return time.process_time() - began

    def _tower_loss(self, rng, done) -> torch.Tensor:
        group, index = self.examples.drawn(rng, self.recipe.tower_batch)
        alike = self.examples.groups[group]
        seen = self._patches(alike, index)
        read, row, column = seen.split([sum(READ), self.rows, self.columns], -1)
        at = torch.from_numpy(patch_places(alike.layout.shape)).expand(len(index), -1, -1).flatten(0, 1)
        where = F.cross_entropy(row.flatten(0, 1), at[:, 0]) + F.cross_entropy(column.flatten(0, 1), at[:, 1])
        return _read_loss(read, alike.targets[index]) + 0.2 * where

    def _patches(self, alike: Alike, index) -> torch.Tensor:
        """What the head reads in these scenes' patches."""
        return self.heads["patch"](self.vision.features(picked(alike.pixels, index), alike.layout.shape))

    @torch.no_grad()
    def _tower_scores(self) -> dict[str, float]:
        groups = self.held_out.groups
        seen = [self.heads["patch"](features).flatten(0, 1) for features in cached_features(self.vision, self.held_out)]
        targets = torch.cat([alike.targets.flatten(0, 1) for alike in groups])
        return _read_accuracy(torch.cat(seen)[:, : sum(READ)], targets)

    def _corners(self, alike: Alike, features: torch.Tensor) -> torch.Tensor:
        shape = alike.layout.shape
        head = cast(nn.ModuleList, self.heads["corner"])[[layout.shape for layout in self.vision.layouts].index(shape)]
        return head(self.vision.connect(features, shape).flatten(1)).view(-1, 4, sum(READ))

    def _connector_loss(self, rng, done) -> torch.Tensor:
        group, index = self.examples.drawn(rng, self.recipe.tower_batch)
        alike = self.examples.groups[group]
        return _read_loss(self._corners(alike, self.features[group][index]), self.examples.corners[alike.rows[index]])

    @torch.no_grad()
    def _connector_scores(self) -> dict[str, float]:
        groups = zip(self.held_out.groups, self.held_features, strict=True)
        read = torch.cat([self._corners(alike, features) for alike, features in groups])
        rows = np.concatenate([alike.rows for alike in self.held_out.groups])
        return _read_accuracy(read, self.held_out.corners[rows])

    def _language_loss(self, rng, done) -> torch.Tensor:
        choices = done > 1 / 3 and rng.random() < self.recipe.choice_share
        return self._text_loss(rng, self._choice_pair if choices else self._open_pair)

    def _choices_loss(self, rng, done) -> torch.Tensor:
        """A quarter of the batches is as in the stage before, 40% (later 12%) of questions that name their answer."""
        chance = rng.random()
        if chance < 0.25:
            return self._text_loss(rng, self._open_pair)
        named = chance < 0.25 + (0.4 if done < 0.5 else 0.12)
        return self._text_loss(rng, self._named_pair if named else self._choice_pair)

    def _open_pair(self, scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
        """A prompt and what to answer: a caption or an open question."""
        if rng.random() < self.recipe.caption_share:
            return language.CAPTION_PROMPTS[int(rng.integers(2))], language.captions(scene, rng, 1)[0]
        asked = language.ask(scene, rng)
        return language.short_answer_prompt(asked.text), asked.answer

    def _choice_pair(self, scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
        asked = language.ask_choice(scene, rng)
        return language.choice_prompt(asked.text, asked.options), language.LETTERS[asked.answer]

    def _named_pair(self, scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
        asked = language.naming_its_answer(language.ask_choice(scene, rng))
        return language.choice_prompt(asked.text, asked.options), language.LETTERS[asked.answer]

    def _text_loss(self, rng: np.random.Generator, pair_of: Callable) -> torch.Tensor:
        group, index = self.examples.drawn(rng, self.recipe.language_batch)
        alike = self.examples.groups[group]
        pairs = [pair_of(self.examples.scenes[i], rng) for i in alike.rows[index]]
        batch = self.encoder(alike.layout, [prompt for prompt, _ in pairs], [answer for _, answer in pairs])
        return answer_loss(self.model, self.vision.connect(self.features[group][index], alike.layout.shape), batch)

    def _language_scores(self) -> dict[str, float]:
        self.model.eval()
        rng = np.random.default_rng(self.recipe.seed + 2)
        given = (self.model, self.vision, self.encoder, self.held_out, self.held_features, rng)
        scores = question_scores(*given) | {"choice": choice_scores(*given)["all"]}
        self.model.train()
        return scores
