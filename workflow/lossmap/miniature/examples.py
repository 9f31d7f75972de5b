"""Scenes as a miniature model sees them, those of one layout together."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from lossmap.miniature.scenes import Scene, digit_pool, draw_scene
from lossmap.miniature.vision import COLOUR_NAMES, TrainableVision, patch_targets
from lossmap.store.layouts import Layout


@dataclass(frozen=True)
class Alike:
    """Scenes of one layout. rows (n,): which of the examples they are; pixels: from `TrainableVision.pixels`; targets:
    (n, patches, 3) of `patch_targets`."""

    layout: Layout
    rows: np.ndarray
    pixels: dict[str, torch.Tensor]
    targets: torch.Tensor


@dataclass(frozen=True)
class Examples:
    """Scenes without their pictures, and the tensors made from them. corners: (scenes, 4, 3) digit + 1, colour + 1,
    size + 1 of each corner, or 0 where there is none."""

    scenes: list[Scene]
    groups: list[Alike]
    corners: torch.Tensor

    def drawn(self, rng: np.random.Generator, n: int) -> tuple[int, np.ndarray]:
        """A batch of n scenes of one layout, that of a scene drawn from all: number of the group, positions in it."""
        index = rng.integers(0, len(self.scenes), n)
        group = next(i for i, alike in enumerate(self.groups) if np.isin(index[0], alike.rows))
        return group, index % len(self.groups[group].rows)


def draw_examples(vision: TrainableVision, part: str, n: int, seed: int) -> Examples:
    """n fresh scenes of the digits of one part ("training" or "held-out") as this model sees them."""
    rng, pool = np.random.default_rng(seed), digit_pool(part)
    layouts = vision.layouts
    scenes: list[Scene] = []
    found: list[list[tuple[np.ndarray, dict, np.ndarray]]] = [[] for _ in layouts]
    for start in range(0, n, 500):
        drawn = [draw_scene(rng, pool) for _ in range(min(500, n - start))]
        own = [vision.layout(scene.image.shape[1], scene.image.shape[0]) for scene in drawn]
        for layout, parts in zip(layouts, found, strict=True):
            rows = np.array([i for i, one in enumerate(own) if one.shape == layout.shape], dtype=np.int64)
            if len(rows):
                targets = np.stack([patch_targets(own[i], drawn[i].digits) for i in rows])
                parts.append((start + rows, vision.pixels([drawn[i].image for i in rows]), targets))
        empty = np.zeros((0, 0, 0), np.uint8)
        scenes += [replace(scene, image=empty, masks=empty) for scene in drawn]
    corners = np.zeros((n, 4, 3), np.int64)
    for i, scene in enumerate(scenes):
        for d in scene.digits:
            corners[i, d.cell] = 1 + d.label, 1 + COLOUR_NAMES.index(d.colour), 1 + (d.size == "large")
    groups = [_joined(layout, parts) for layout, parts in zip(layouts, found, strict=True) if parts]
    return Examples(scenes, groups, torch.from_numpy(corners))


def _joined(layout: Layout, parts: list[tuple[np.ndarray, dict, np.ndarray]]) -> Alike:
    rows, pixels, targets = zip(*parts, strict=True)
    return Alike(
        layout,
        np.concatenate(rows),
        {key: torch.cat([part[key] for part in pixels]) for key in pixels[0]},
        torch.from_numpy(np.concatenate(targets)),
    )


def picked(tensors: dict[str, torch.Tensor], index) -> dict[str, torch.Tensor]:
    """The same rows of all tensors."""
    return {key: value[index] for key, value in tensors.items()}


@torch.no_grad()
def cached_features(vision: TrainableVision, examples: Examples, batch: int = 100) -> list[torch.Tensor]:
    """Of each group (scenes, patches, features) float32: `TrainableVision.features` of all its scenes."""
    found = []
    for alike in examples.groups:
        starts = range(0, len(alike.rows), batch)
        pixels = [picked(alike.pixels, slice(i, i + batch)) for i in starts]
        found.append(torch.cat([vision.features(part, alike.layout.shape) for part in pixels]))
    return found
