"""The image side of a miniature model in training: pixels, tower and connector apart, and what each patch shows."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from lossmap.miniature.scenes import COLOURS, SHAPES, Digit
from lossmap.store.layouts import Layout, Shape
from lossmap.vlm.families import is_connector_key, is_vision_key
from lossmap.vlm.opening import open_model
from lossmap.vlm.recompute import Connector

COLOUR_NAMES = tuple(COLOURS)


class _Reached(Exception):
    """Ends a forward pass at the connector's door."""


class TrainableVision:
    """Vision tower and connector of a model in memory, one after the other and with gradients. How images are cut, and
    in which order patches and tokens lie, is what `lossmap.embed` makes of this model."""

    def __init__(self, model, processor):
        self.side = open_model(model, processor)
        about = self.side.model_type, self.side.family, self.side.config, self.side.model
        self.layout = self.side.layout
        example = None if self.side.pre_grid else self.layout(96, 96).shape
        self._connector = Connector("the model in training", *about, self.side.pre_grid, example)

    @cached_property
    def layouts(self) -> list[Layout]:
        """Of the pictures of scenes: one of each shape, in a fixed order."""
        found: dict[Shape, Layout] = {}
        for height, width in SHAPES:
            layout = self.layout(width, height)
            found.setdefault(layout.shape, layout)
        return list(found.values())

    def pixels(self, images: list[np.ndarray], batch: int = 200) -> dict[str, torch.Tensor]:
        """Pictures of one size as bytes that the model's inputs are made of; first dimension the image."""
        parts = [
            self.side.preprocessor.prepare([Image.fromarray(image) for image in images[start : start + batch]])
            for start in range(0, len(images), batch)
        ]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def features(self, pixels: dict[str, torch.Tensor], shape: Shape) -> torch.Tensor:
        """(images, patches, features): what the connector is given, in the order of a store. Nothing behind it runs.
        pixels: from `pixels`, of images of this layout's shape."""
        side, seen = self.side, []

        def reached(module, args, kwargs):
            seen.append(args[0] if args else next(iter(kwargs.values())))
            raise _Reached

        hook = side.model.get_submodule(side.family.connector).register_forward_pre_hook(reached, with_kwargs=True)
        model: Any = side.model
        try:
            model.get_image_features(**side.preprocessor.normalise(pixels))
        except _Reached:
            pass
        finally:
            hook.remove()
        grid = shape.views[0].rows, shape.views[0].cols  # of all views
        pre = side.family.to_raster(seen[0], side.config, grid)
        return pre.reshape(-1, shape.patches, pre.shape[-1])

    def connect(self, features: torch.Tensor, shape: Shape) -> torch.Tensor:
        """(images, tokens, features_out): what the language model is given. features: from `features`."""
        return self._connector.post(features, shape)

    def tower_parameters(self) -> list[torch.nn.Parameter]:
        """Of the vision tower, without the connector's."""
        family = self.side.family
        return self._parameters(lambda name: is_vision_key(family, name) and not is_connector_key(family, name))

    def connector_parameters(self) -> list[torch.nn.Parameter]:
        """Of the connector alone."""
        return self._parameters(lambda name: is_connector_key(self.side.family, name))

    def _parameters(self, wanted: Callable[[str], bool]) -> list[torch.nn.Parameter]:
        return [values for name, values in self.side.model.named_parameters() if wanted(name)]


def patch_targets(layout: Layout, digits: tuple[Digit, ...]) -> np.ndarray:
    """(patches, 3) int64: digit + 1, colour + 1, size + 1 of the digit that a patch shows; 0 = none. A patch shows the
    digit whose box covers most of it, at least a fifth."""
    left, top, right, bottom = layout.patch_boxes.T
    targets = np.zeros((len(left), 3), np.int64)
    best = np.full(len(left), 0.2)
    for digit in digits:
        x, y, width, height = digit.box
        across = np.clip(np.minimum(right, x + width) - np.maximum(left, x), 0, None) / (right - left)
        down = np.clip(np.minimum(bottom, y + height) - np.maximum(top, y), 0, None) / (bottom - top)
        shown = across * down > best
        best[shown] = (across * down)[shown]
        targets[shown] = (1 + digit.label, 1 + COLOUR_NAMES.index(digit.colour), 1 + (digit.size == "large"))
    return targets


def patch_places(shape: Shape) -> np.ndarray:
    """(patches, 2) int64: row and column of each patch in its view."""
    grids = [np.indices((view.rows, view.cols)).reshape(2, -1) for view in shape.views]
    return np.concatenate(grids, 1).T
