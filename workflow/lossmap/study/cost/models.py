"""What a model takes, from its configuration alone: shapes, operations and memory. No weights are read or made."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText

from lossmap.study.cost.dry_run import META, DryRun
from lossmap.vlm.embedding import images_at_once
from lossmap.vlm.families import is_vision_key, read_family
from lossmap.vlm.input_size import embedding_shapes, usual_image_size
from lossmap.vlm.loading import TEXT_PARTS, VisionSide, drop, precision_of, quiet, without_text
from lossmap.vlm.preprocessing import read_preprocessor
from lossmap.vlm.receives import ALL
from lossmap.vlm.tiled import TiledPreprocessor
from lossmap.vlm.view_limits import SQUARE, View

TYPICAL = (640, 480)  # width and height of most photographs of COCO and its kin


@dataclass(frozen=True)
class VisionCost:
    """A vision tower with its connector.

    seen: how an image is seen, in words. patches: rows of pre of one image, as stored. pre_shape: (patches that tokens
    stand for, features). post_shape: (tokens, features). pre_grid and post_grid: (rows, columns), post_grid None where
    tokens have no place; where images are seen in views, one grid of as many patches. parameters: how many. weights:
    bytes of them. flops: operations for one image. activations: bytes held at once on the way of one image, at most.
    square: tokens that the same model would give in one square view, where it doesn't see images so. in_views: whether
    its images differ in layout.
    """

    model_type: str
    seen: str
    patches: int
    pre_grid: tuple[int, int]
    post_grid: tuple[int, int] | None
    pre_shape: tuple[int, int]
    post_shape: tuple[int, int]
    parameters: int
    weights: int
    flops: int
    activations: int
    square: int | None = None
    in_views: bool = False

    def at_once(self, batch: int) -> int:
        """Images in one forward pass, of a batch of so many."""
        return min(batch, images_at_once(batch, self.patches)) if self.in_views else batch


@dataclass(frozen=True)
class LanguageCost:
    """A language model that is given an image and a prompt.

    parameters: how many. weights: bytes of them. prompt_flops: operations to read one prompt. token_flops: operations
    for each token said after it. activations: bytes held at once while one prompt is read, its cache included. cache:
    bytes of the cache of one prompt. token_cache: for each token said after it.
    """

    parameters: int
    weights: int
    prompt_flops: int
    token_flops: int
    activations: int
    cache: int
    token_cache: int


def vision_cost(
    folder: Path, image_size: int | None, dtype: str, called: str, view: View = SQUARE, receives: str = ALL
) -> VisionCost:
    """Embed one image, without weights. Where its views depend on its size, it is one of `TYPICAL` pixels.

    Parameters: folder, with the model's configuration and its image processor's (see `fetch_configuration`);
        image_size and view, see `load_preprocessor`; dtype, of the computation, see `load_vision_side`; called, what
        messages call the model; receives, see `lossmap.vlm.receives`.
    Raises: LossmapError as `load_preprocessor`, and if the configuration is of no known family.
    """
    preprocessor = read_preprocessor(folder, image_size, called, view)
    model_type, family = read_family(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with META, quiet():
        model = AutoModel.from_config(without_text(config), dtype=precision_of(dtype)).eval()
    drop(model, (*TEXT_PARTS, *family.unread))
    with DryRun() as cost:
        vision = VisionSide(model_type, family, config, model, preprocessor, None, called, view, receives)
    if isinstance(preprocessor, TiledPreprocessor):
        with DryRun() as cost:
            vision.embed_image(Image.new("RGB", TYPICAL))
        shapes = _views(preprocessor, vision) | {"square": _square_tokens(folder), "in_views": True}
    else:
        rows, columns = preprocessor.grid
        height, width = preprocessor.input_size
        shapes = {
            "seen": f"{width} x {height}",
            "patches": family.extra + rows * columns,
            "pre_grid": preprocessor.grid,
            "post_grid": vision.post_grid,
            "pre_shape": (rows * columns, vision.pre_dim),
            "post_shape": (vision.post_tokens, vision.post_dim),
        }
    numbers = _size(model.parameters()) | {"flops": cost.flops, "activations": cost.memory}
    return VisionCost(**{"model_type": model_type, **shapes, **numbers})


def _square_tokens(folder: Path) -> int | None:
    shapes = embedding_shapes(folder, usual_image_size(folder))
    return shapes.post_shape[0] if shapes else None


def _views(preprocessor: TiledPreprocessor, vision: VisionSide) -> dict[str, Any]:
    """Shapes of a typical image in views, as those of one view: costs depend on how many there are of each."""
    shape = preprocessor.layout(*TYPICAL).shape
    count, tokens = len(shape.views), shape.tokens
    blocks = shape.blocks.patches
    placed = len(blocks) > 0
    of_each = blocks.shape[1] if placed else max(1, round(shape.patches / tokens))
    parts = len(blocks) if placed else tokens
    lines, side = 2 if parts % 2 == 0 else 1, math.isqrt(of_each) if placed else 1
    return {
        "seen": f"{TYPICAL[0]} x {TYPICAL[1]} in {count} view{'s' * (count > 1)}",
        "patches": shape.patches,
        "pre_grid": (lines * side, parts // lines * of_each // side),
        "post_grid": (lines, parts // lines) if placed else None,
        "pre_shape": (parts * of_each, vision.pre_dim),
        "post_shape": (tokens, vision.post_dim),
    }


def language_cost(folder: Path, dtype: str, tokens: int) -> LanguageCost:
    """Read one prompt of `tokens` tokens, the image's included, and say one token, without weights.

    Parameters: folder and dtype, see `vision_cost`.
    """
    _, family = read_family(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with META, quiet():
        model = AutoModelForImageTextToText.from_config(config, dtype=precision_of(dtype)).eval()
    said = [values for key, values in model.named_parameters() if not is_vision_key(family, key, family.spoken)]
    text = next(getattr(model.model, part) for part in TEXT_PARTS if hasattr(model.model, part))
    head = model.get_output_embeddings()
    # Vectors, as of an image; but Gemma 4's layers want words, which it would look for in the vectors' values.
    if getattr(text.config, "hidden_size_per_layer_input", None):
        name, given = "input_ids", torch.zeros(1, tokens + 1, dtype=torch.int64)
    else:
        width = text.config.hidden_size
        name, given = "inputs_embeds", torch.empty(1, tokens + 1, width, dtype=model.dtype, device=META)
    with torch.inference_mode(), DryRun() as reading:
        read = text(**{name: given[:, :-1]}, use_cache=True)
        head(read.last_hidden_state[:, -1:])
    layers = read.past_key_values.layers
    grown = sum(side.nbytes for layer in layers if hasattr(layer, "keys") for side in (layer.keys, layer.values))
    # Layers of linear attention hold a state of the same size, however long the prompt is.
    states = sum(_nbytes(vars(layer)) for layer in layers if not hasattr(layer, "keys"))
    with torch.inference_mode(), DryRun() as saying:
        head(text(**{name: given[:, -1:]}, past_key_values=read.past_key_values).last_hidden_state)
    return LanguageCost(
        **_size(said),
        prompt_flops=reading.flops,
        token_flops=saying.flops,
        activations=reading.memory,
        cache=grown + states,
        token_cache=grown // tokens,
    )


def _nbytes(held) -> int:
    """Of all tensors in what is held."""
    return sum(value.nbytes for value in tree_leaves(held) if isinstance(value, torch.Tensor))


def _size(weights) -> dict[str, int]:
    weights = list(weights)
    numbers = sum(values.numel() for values in weights)
    return {"parameters": numbers, "weights": sum(values.nbytes for values in weights)}
