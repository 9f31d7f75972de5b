"""The image side of a miniature model: pixels, tower, connector, and what each patch shows."""

import numpy as np
import torch
from PIL import Image
from transformers.vision_utils import get_vision_window_index

from lossmap.miniature.build import GRID, IMAGE, PATCH
from lossmap.miniature.scenes import COLOURS, Scene

INPUTS = {
    "llava": ("pixel_values",),
    "idefics2": ("pixel_values", "pixel_attention_mask"),
    "qwen2_5_vl": ("pixel_values", "image_grid_thw"),
}
COLOUR_NAMES = tuple(COLOURS)


def model_images(name: str, images: list[np.ndarray]) -> list:
    """Pictures as the processor of this model takes them. Qwen's would keep the aspect ratio, so it gets them
    square."""
    pictures = [Image.fromarray(image) for image in images]
    if name == "qwen2_5_vl":
        return [picture.resize((IMAGE, IMAGE), Image.Resampling.BICUBIC) for picture in pictures]
    return [[picture] for picture in pictures] if name == "idefics2" else pictures


def pixel_tensors(name: str, processor, images: list[np.ndarray], batch: int = 200) -> dict[str, torch.Tensor]:
    """The image tensors of `get_image_features`, first dimension the image."""
    parts = []
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        made = processor.image_processor(images=model_images(name, chunk), return_tensors="pt")
        made = {key: made[key] for key in INPUTS[name]}
        if name == "qwen2_5_vl":
            made["pixel_values"] = made["pixel_values"].view(len(chunk), GRID * GRID, -1)
        parts.append(made)
    return {key: torch.cat([part[key] for part in parts]) for key in INPUTS[name]}


class _Reached(Exception):
    """Ends a forward pass at the connector's door."""


def connector_of(model) -> torch.nn.Module:
    """The connector module of a miniature model."""
    base = model.model
    for path in ("multi_modal_projector", "connector", "visual.merger"):
        try:
            return base.get_submodule(path)
        except AttributeError:
            continue
    raise ValueError(f"no connector in {type(model).__name__}")


def tower_parameters(model) -> list[torch.nn.Parameter]:
    """The parameters of the vision tower, without the connector's."""
    prefixes = ("vision_tower.", "vision_model.", "visual.")
    named = model.model.named_parameters()
    return [p for n, p in named if n.startswith(prefixes) and not n.startswith("visual.merger.")]


def tower_features(name: str, model, pixels: dict[str, torch.Tensor]) -> torch.Tensor:
    """(images, patches, WIDTH): what the connector is given, in the order in which it is given it. Nothing behind it
    runs."""
    seen = []

    def reached(module, args, kwargs):
        seen.append(args[0] if args else next(iter(kwargs.values())))
        raise _Reached

    if name == "qwen2_5_vl":
        pixels = {**pixels, "pixel_values": pixels["pixel_values"].flatten(0, 1)}
    hook = connector_of(model).register_forward_pre_hook(reached, with_kwargs=True)
    try:
        model.model.get_image_features(**pixels)
    except _Reached:
        pass
    finally:
        hook.remove()
    return seen[0].view(-1, GRID * GRID, seen[0].shape[-1])


def _qwen_windows(model) -> torch.Tensor:
    """Order of the merge cells at Qwen's connector, for one image."""
    vision = model.config.vision_config
    grid = torch.tensor([[1, GRID, GRID]])
    index = get_vision_window_index(grid, vision.spatial_merge_size, vision.window_size, vision.patch_size)[0]
    return torch.as_tensor(index)


def connect(name: str, model, features: torch.Tensor) -> torch.Tensor:
    """(images, image tokens, WIDTH): what the language model is given. features: from `tower_features`."""
    connector = connector_of(model)
    if name == "llava":
        return connector(features)
    if name == "idefics2":
        return connector(features, attention_mask=torch.ones(features.shape[:2], dtype=torch.bool))
    merged = connector(features.flatten(0, 1)).view(len(features), -1, features.shape[-1])
    return merged[:, _qwen_windows(model).argsort()]


def patch_order(name: str, model) -> torch.Tensor:
    """(patches,): the raster index of each row of `tower_features`."""
    raster = torch.arange(GRID * GRID)
    if name != "qwen2_5_vl":
        return raster
    blocks = raster.view(GRID // 2, 2, GRID // 2, 2).permute(0, 2, 1, 3).reshape(-1, 4)
    return blocks[_qwen_windows(model)].flatten()


def patch_targets(name: str, scene: Scene) -> np.ndarray:
    """(patches, 3) int64 in raster order: digit + 1, colour + 1, size + 1 of the digit that a patch of the model's
    input shows; 0 = none. A patch shows the digit whose box covers most of it, at least a fifth."""
    height, width = scene.image.shape[:2]
    if name == "llava":  # shortest edge to IMAGE, central crop
        side = min(height, width)
        scale = np.full(2, IMAGE / side)
        shift = np.array([(width - side) / 2, (height - side) / 2])
    else:
        scale, shift = np.array([IMAGE / width, IMAGE / height]), np.zeros(2)
    targets = np.zeros((GRID, GRID, 3), np.int64)
    best = np.full((GRID, GRID), 0.2)
    edges = np.arange(GRID) * PATCH
    for digit in scene.digits:
        low = (np.array(digit.box[:2]) - shift) * scale
        high = (np.array(digit.box[:2]) + digit.box[2:] - shift) * scale
        cover = [
            np.clip(np.minimum(edges + PATCH, high[i]) - np.maximum(edges, low[i]), 0, PATCH) / PATCH for i in (0, 1)
        ]
        share = cover[1][:, None] * cover[0][None]
        shown = share > best
        best[shown] = share[shown]
        targets[shown] = (1 + digit.label, 1 + COLOUR_NAMES.index(digit.colour), 1 + (digit.size == "large"))
    return targets.reshape(-1, 3)
