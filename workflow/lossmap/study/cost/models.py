"""What a model takes, from its configuration alone: shapes, operations and memory. No weights are read or made."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText

from lossmap.study.cost.dry_run import META, DryRun
from lossmap.vlm.families import is_vision_key, read_family
from lossmap.vlm.loading import TEXT_PARTS, VisionSide, _without_text, precision_of, quiet
from lossmap.vlm.preprocessing import read_preprocessor


@dataclass(frozen=True)
class VisionCost:
    """A vision tower with its connector.

    input_size: (height, width) in pixels. pre_shape: (patches, features). post_shape: (tokens, features). pre_grid and
    post_grid: (rows, columns), post_grid None where tokens have no place. parameters: how many. weights: bytes of them.
    flops: operations for one image. activations: bytes held at once on the way of one image, at most.
    """

    model_type: str
    input_size: tuple[int, int]
    pre_grid: tuple[int, int]
    post_grid: tuple[int, int] | None
    pre_shape: tuple[int, int]
    post_shape: tuple[int, int]
    parameters: int
    weights: int
    flops: int
    activations: int


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


def vision_cost(folder: Path, image_size: int | None, dtype: str, called: str) -> VisionCost:
    """Embed one image, without weights.

    Parameters: folder, with the model's configuration and its image processor's (see `fetch_configuration`);
        image_size, see `load_preprocessor`; dtype, of the computation, see `load_vision_side`; called, what messages
        call the model.
    Raises: LossmapError as `load_preprocessor`, and if the configuration is of no known family.
    """
    preprocessor = read_preprocessor(folder, image_size, called)
    model_type, family = read_family(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with META, quiet():
        model = AutoModel.from_config(_without_text(config, family), dtype=precision_of(dtype)).eval()
    for part in TEXT_PARTS:
        if hasattr(model, part):
            setattr(model, part, None)
    with DryRun() as cost:
        vision = VisionSide(model_type, family, config, model, preprocessor, None)
    rows, columns = vision.pre_grid
    return VisionCost(
        model_type=model_type,
        input_size=preprocessor.input_size,
        pre_grid=vision.pre_grid,
        post_grid=vision.post_grid,
        pre_shape=(rows * columns, vision.pre_dim),
        post_shape=(vision.post_tokens, vision.post_dim),
        **_size(model.parameters()),
        flops=cost.flops,
        activations=cost.memory,
    )


def language_cost(folder: Path, dtype: str, tokens: int) -> LanguageCost:
    """Read one prompt of `tokens` tokens, the image's included, and say one token, without weights.

    Parameters: folder and dtype, see `vision_cost`.
    """
    _, family = read_family(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with META, quiet():
        model = AutoModelForImageTextToText.from_config(config, dtype=precision_of(dtype)).eval()
    said = [values for name, values in model.named_parameters() if not is_vision_key(family, name)]
    text = next(getattr(model.model, part) for part in TEXT_PARTS if hasattr(model.model, part))
    width, head = text.config.hidden_size, model.get_output_embeddings()
    vectors = torch.empty(1, tokens + 1, width, dtype=model.dtype, device=META)
    with torch.inference_mode(), DryRun() as reading:
        read = text(inputs_embeds=vectors[:, :-1], use_cache=True)
        head(read.last_hidden_state[:, -1:])
    cache = sum(side.nbytes for layer in read.past_key_values.layers for side in (layer.keys, layer.values))
    with torch.inference_mode(), DryRun() as saying:
        head(text(inputs_embeds=vectors[:, -1:], past_key_values=read.past_key_values).last_hidden_state)
    return LanguageCost(
        **_size(said),
        prompt_flops=reading.flops,
        token_flops=saying.flops,
        activations=reading.memory,
        cache=cache,
        token_cache=cache // tokens,
    )


def _size(weights) -> dict[str, int]:
    weights = list(weights)
    numbers = sum(values.numel() for values in weights)
    return {"parameters": numbers, "weights": sum(values.nbytes for values in weights)}
