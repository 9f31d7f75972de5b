"""How large a model's input is, and of which shapes, by a checkpoint's configuration alone.

One rule for all: loading asks it with what transformers has read, a study's check with the JSON files themselves, which
needs neither torch nor transformers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from lossmap.errors import LossmapError
from lossmap.vlm.families import FAMILIES, Family
from lossmap.vlm.foreign_formats import json_object
from lossmap.vlm.receives import ALL
from lossmap.vlm.view_limits import SQUARE, View, view_problem

USUAL = 336  # pixels: the side of LLaVA's images, proposed for models that take any
ASPECT_OF_QWEN = 200  # the longest shape that Qwen's image processors take: long side over short
# Towers that take images of one size.
FIXED_POSITIONS = (
    "clip_vision_model",
    "siglip_vision_model",
    "ovis2_vision",
    "blip_2_vision_model",
    "mllama_vision_model",
    "idefics_vision",
)
# What transformers takes where a config.json of a family without a size of its own is silent.
DEFAULTS: dict[str, dict[str, Any]] = {
    "blip-2": {
        "num_query_tokens": 32,
        "vision_config": {"patch_size": 14, "image_size": 224, "hidden_size": 1408},
    },
    "idefics2": {
        "vision_config": {"patch_size": 32, "image_size": 224},
        "perceiver_config": {"resampler_n_latents": 64},
    },
    "idefics3": {"scale_factor": 2, "vision_config": {"patch_size": 32, "image_size": 224}},
    "smolvlm": {"scale_factor": 2, "vision_config": {"patch_size": 32, "image_size": 224}},
    "qwen2_vl": {"vision_config": {"patch_size": 14, "spatial_merge_size": 2}},
    "qwen2_5_vl": {"vision_config": {"patch_size": 14, "spatial_merge_size": 2}},
    "qwen3_vl": {"vision_config": {"patch_size": 16, "spatial_merge_size": 2}},
    "qwen3_vl_moe": {"vision_config": {"patch_size": 16, "spatial_merge_size": 2}},
    "qwen3_5": {"vision_config": {"patch_size": 16, "spatial_merge_size": 2}},
    "qwen3_5_moe": {"vision_config": {"patch_size": 16, "spatial_merge_size": 2}},
    "exaone4_5": {"vision_config": {"patch_size": 14, "spatial_merge_size": 2}},
    "ernie4_5_vl_moe": {"vision_config": {"patch_size": 14, "spatial_merge_size": 2}},
    "glm4v": {"vision_config": {"patch_size": 14, "spatial_merge_size": 2}},
    "glm4v_moe": {"vision_config": {"patch_size": 14, "spatial_merge_size": 2}},
    "glm46v": {"vision_config": {"patch_size": 14, "spatial_merge_size": 2}},
    "glm_ocr": {"vision_config": {"patch_size": 14, "spatial_merge_size": 2}},
    "gemma4": {"vision_config": {"patch_size": 16, "pooling_kernel_size": 3, "hidden_size": 768}},
    "minicpmv4_6": {
        "downsample_mode": "16x",
        "merge_kernel_size": (2, 2),
        "merger_times": 1,
        "vision_config": {"patch_size": 16, "hidden_size": 768},
    },
    "mistral3": {"spatial_merge_size": 2, "vision_config": {"patch_size": 16, "image_size": 1024}},
    "lighton_ocr": {"spatial_merge_size": 2, "vision_config": {"patch_size": 16, "image_size": 1024}},
    "vipllava": {"vision_feature_layers": (-2, -5, -8, -11, 6)},
}
LARGEST_TILE = {"longest_edge": 364}  # of Idefics3 and SmolVLM, where their settings are silent
LONGEST_OF_PIXTRAL = 1024  # its image processor's longest edge, likewise


@dataclass(frozen=True)
class InputSize:
    """size, crop, patch, merge: see `Preprocessor`. pad: whether margins make an image square before all else."""

    size: tuple[int, int] | int
    crop: tuple[int, int] | None
    pad: bool
    patch: int
    merge: int


@dataclass(frozen=True)
class Shapes:
    """Of one image's embeddings.

    pre_grid: (rows, columns) of patches; pre_shape: (patches, features). post_grid: of the tokens, None where they have
    no place; post_shape: (tokens, features).
    """

    pre_grid: tuple[int, int]
    pre_shape: tuple[int, int]
    post_grid: tuple[int, int] | None
    post_shape: tuple[int, int]


def input_size(where: str, family: Family, config: Any, settings: dict, image_size: int | None = None) -> InputSize:
    """What an image is resized to and cropped to, and the patches that this is cut into.

    Parameters: where, what messages call the checkpoint; config, its configuration, an object; settings, its image
        processor's, as in JSON; image_size, the study's side of the square, needed by families that take any size
        unless the checkpoint fixes one.
    Raises: LossmapError if image_size is missing or is none that the model takes, or if the settings lead to no fixed
        size, or to one that the vision tower doesn't take.
    """
    patch, merge = patch_and_merge(where, family, config, settings)
    if family.view in ("any", "longest"):
        wanted, largest = image_size or _own_side(family, settings), getattr(config.vision_config, "image_size", None)
        side = _checked_side(where, family, wanted, patch * merge, merge, largest)
        return InputSize((side, side), None, False, patch, merge)
    pad = bool(settings.get("do_pad")) and settings.get("image_processor_type", "").startswith("LlavaImageProcessor")
    size, crop = _fixed(settings, family.view, pad)
    given = crop or size
    if size is None or not isinstance(given, tuple):
        crops = "" if settings.get("do_center_crop") else " without a centre crop"
        raise LossmapError(
            f"{where}: its image processor's size is {settings.get('size')}{crops}, of which Lossmap makes no fixed"
            " size. Use a checkpoint with size as height and width, or as shortest_edge alone and do_center_crop."
        )
    if image_size and given != (image_size, image_size):
        raise LossmapError(
            f"{where}: takes inputs of {given[1]} x {given[0]} pixels only, but image_size is {image_size}. Leave"
            " image_size out."
        )
    _check_tower(where, config.vision_config, given, patch, merge)
    return InputSize(size, crop, pad, patch, merge)


def patch_and_merge(where: str, family: Family, config: Any, settings: dict) -> tuple[int, int]:
    """Side of what enters the connector as a patch, in pixels, and patches of a token along each side.

    Raises: LossmapError if the model has no vision encoder, or one that draws at random, or if the image processor
        doesn't resize.
    """
    if config.vision_config is None:
        raise LossmapError(f"{where}: its config.json has no vision_config: it sees no images. Use another checkpoint.")
    if getattr(config.vision_config, "tokenize_function", None) == "gumbel_argmax":
        raise LossmapError(
            f"{where}: its config.json says tokenize_function: gumbel_argmax, which draws tokens at random. Set softmax"
            " or st_argmax."
        )
    if getattr(config, "use_resampler", None) is False:
        raise LossmapError(
            f"{where}: its config.json says use_resampler: false: its language model reads the vision encoder's own"
            " patches, and there is no connector. Use another checkpoint."
        )
    tiles = getattr(config.vision_config, "max_num_tiles", None)
    if (made := settings.get("max_image_tiles", tiles)) != tiles:
        raise LossmapError(
            f"{where}: its image processor makes up to {made} tiles, its vision tower takes {tiles}. Copy the image"
            " processor's configuration from where the model comes from."
        )
    if settings.get("do_resize", True) is False:
        raise LossmapError(
            f"{where}: its image processor says do_resize: false, so inputs have no fixed size. Set it true."
        )
    cell = family.cell(config) if family.cell else 1
    return cell * _square(config.vision_config.patch_size), family.merge(config) if family.merge else 1


def read_settings(folder: Path) -> dict:
    """The image processor's settings of a checkpoint folder, from the file that transformers takes them from: nested in
    processor_config.json, else preprocessor_config.json; empty if neither can be read."""
    nested = json_object(folder / "processor_config.json").get("image_processor")
    settings = nested if isinstance(nested, dict) else json_object(folder / "preprocessor_config.json")
    pixels = {"shortest_edge": settings.get("min_pixels"), "longest_edge": settings.get("max_pixels")}
    if any(pixels.values()):  # as Qwen's older checkpoints say it
        size = settings.get("size")
        given = size if isinstance(size, dict) else {}
        settings = {**settings, "size": {**given, **{key: value for key, value in pixels.items() if value}}}
    return settings


def size_problem(
    folder: Path, image_size: int | None = None, called: str | None = None, view: View = SQUARE
) -> str | None:
    """What is wrong with the input size of a checkpoint in a study; None if nothing, or if its files leave it open.

    Parameters: folder, with config.json and the image processor's settings; image_size and view, the study's; called,
        what the message calls the checkpoint.
    """
    content, settings = json_object(folder / "config.json"), read_settings(folder)
    family = FAMILIES.get(str(content.get("model_type")))
    if family is None:
        return None  # another check names it
    where = f"{called or folder} ({content['model_type']})"
    if (problem := view_problem(where, family.own_view, view)) or (view != SQUARE and family.own_view):
        return problem
    if family.view not in ("any", "longest") and not isinstance(settings.get("size"), dict):
        return None  # what a file leaves to transformers' defaults, loading tells
    try:
        input_size(where, family, _configuration(content), settings, image_size)
    except LossmapError as error:
        return str(error)
    except (AttributeError, TypeError, KeyError, ValueError, ZeroDivisionError):
        return None
    return None


def usual_image_size(folder: Path) -> int | None:
    """The image_size to begin with: the side of the largest square up to USUAL pixels that a model of any input size
    takes; None where its checkpoint fixes the size, or takes no such square.

    Parameters: folder, as `size_problem`.
    """
    sides = (None, *range(USUAL, 0, -1))
    return next((side for side in sides if size_problem(folder, side) is None), None)


def embedding_shapes(folder: Path, image_size: int | None = None, receives: str = ALL) -> Shapes | None:
    """Shapes of the embeddings of one image; None if they can't be known by the checkpoint's JSON files alone.

    Parameters: folder and image_size as `size_problem`; receives, see `lossmap.vlm.receives`.
    """
    content, settings = json_object(folder / "config.json"), read_settings(folder)
    family = FAMILIES.get(str(content.get("model_type")))
    if family is None:
        return None
    try:
        config = _configuration(content)
        found = input_size(str(folder), family, config, settings, image_size)
        height, width = cast("tuple[int, int]", found.crop or found.size)
        rows, columns = height // found.patch, width // found.patch
        post_grid = (rows // found.merge, columns // found.merge) if family.merge else None
        if post_grid:
            tokens = family.before + post_grid[0] * post_grid[1] + family.newline
        elif family.latents:
            tokens = family.latents(config)
        else:
            return None
        connectors = 1 + len(family.further(config, receives))
        pre_shape = rows * columns, _patch_features(family, config, receives)
        post_shape = tokens, connectors * family.post_dim(config)
        return Shapes((rows, columns), pre_shape, post_grid, post_shape)
    except (LossmapError, AttributeError, TypeError, KeyError, ValueError, ZeroDivisionError, StopIteration):
        return None  # another check names it; what a file leaves to transformers' defaults, loading tells


def patch_features(folder: Path, receives: str = ALL) -> int | None:
    """Features of a patch before the connector, in whatever view; None if the checkpoint's JSON files leave them open.

    Parameters: folder, with config.json; receives, see `lossmap.vlm.receives`.
    """
    content = json_object(folder / "config.json")
    family = FAMILIES.get(str(content.get("model_type")))
    try:
        return _patch_features(family, _configuration(content), receives) if family else None
    except (AttributeError, TypeError, KeyError):
        return None  # another check names it


def _patch_features(family: Family, config: Any, receives: str) -> int:
    return (1 + len(family.further(config, receives))) * family.pre_dim(config)


def shape_problems(folder: Path, shapes: Iterable[tuple[str, int, int]]) -> list[str]:
    """Images whose shape the family's own image processor refuses, a line each.

    Parameters: folder, of the checkpoint (its JSON files are read); shapes, (image's file, width, height), the size
        after EXIF orientation, as in a manifest.
    """
    content, settings = json_object(folder / "config.json"), read_settings(folder)
    limit = _largest_aspect(content.get("model_type"), settings)
    return [
        f"{image}: {width} x {height} pixels; image processors of {content['model_type']} take shapes up to {limit}:1."
        " Crop the image, or take it out of the dataset."
        for image, width, height in shapes
        if limit and max(width, height) > limit * min(width, height)
    ]


def _largest_aspect(model_type: str | None, settings: dict) -> int | None:
    """Long side over short, at most; None where any is taken. Pixtral's processor scales to a longest edge and fails
    where that leaves the shorter one without a pixel."""
    if model_type in FAMILIES and "image_grid_thw" in FAMILIES[model_type].inputs:
        return ASPECT_OF_QWEN
    if model_type in FAMILIES and FAMILIES[model_type].own_view in ("longest", "longest_in_patches"):
        size = settings.get("size")
        return size.get("longest_edge", LONGEST_OF_PIXTRAL) if isinstance(size, dict) else LONGEST_OF_PIXTRAL
    return None


def _checked_side(where: str, family: Family, side: int | None, unit: int, merge: int, tower: Any) -> int:
    if side is None:
        raise LossmapError(
            f"{where}: takes images of any size. Set the model's image_size to the side of the square that every"
            f" image is resized to, a multiple of {unit}, say {USUAL // unit * unit or unit}."
        )
    if side < unit or side % unit:
        below = max(side // unit, 1) * unit
        raise LossmapError(
            f"{where}: image_size {side} is not a multiple of {unit}, the side of"
            f" {'a patch' if merge == 1 else f'{merge} x {merge} patches'}."
            f" Take {below} or {below + unit}."
        )
    # Idefics2's towers and their heirs have so many positions; of more patches, several would share one.
    if "pixel_attention_mask" in family.inputs and isinstance(tower, int) and side > tower:
        raise LossmapError(
            f"{where}: image_size {side} is more than {tower}, up to which its vision tower has position embeddings."
            f" Take {tower // unit * unit} or less."
        )
    return side


def _check_tower(where: str, tower: Any, given: tuple[int, int], patch: int, merge: int) -> None:
    own = getattr(tower, "image_size", None)
    if getattr(tower, "model_type", None) in FIXED_POSITIONS and isinstance(own, int) and given != (own, own):
        raise LossmapError(
            f"{where}: its image processor makes inputs of {given[1]} x {given[0]} pixels, its vision tower takes"
            f" {own} x {own} only. Copy the image processor's configuration from where the model comes from."
        )
    rows, cols = given[0] // patch, given[1] // patch
    if not rows or not cols or rows % merge or cols % merge:
        raise LossmapError(
            f"{where}: inputs of {given[1]} x {given[0]} pixels are {rows} x {cols} patches, which don't form squares"
            f" of {merge} x {merge}. Copy the image processor's configuration from where the model comes from."
        )


def _fixed(settings: dict, view: str, pad: bool) -> tuple[tuple[int, int] | int | None, tuple[int, int] | None]:
    """What a family of fixed input size resizes to, and crops to; None for what the settings don't say."""
    size, crop = _sides(settings, "size"), _sides(settings, "crop_size")
    if set(size) == {"shortest_edge"}:
        square = view == "base" or pad
        edge = size["shortest_edge"]
        resize: tuple[int, int] | int = (edge, edge) if square else edge
    elif set(size) == {"height", "width"}:
        resize = (size["height"], size["width"])
    else:
        return None, None
    if settings.get("do_center_crop") and crop and (crop["height"], crop["width"]) != resize:
        return resize, (crop["height"], crop["width"])
    return resize, None


def _own_side(family: Family, settings: dict) -> int | None:
    """The side that a checkpoint of a family that takes any size fixes, if it does."""
    if family.view == "longest":
        return (settings.get("max_image_size") or LARGEST_TILE).get("longest_edge")
    size = _sides(settings, "size")
    shortest, longest = size.get("shortest_edge"), size.get("longest_edge")
    if shortest is None or shortest != longest:
        return None
    if "image_grid_thw" in family.inputs:  # Qwen counts pixels, not edges
        pixels = shortest // (settings.get("temporal_patch_size", 2) if family.own_view == "native_frames" else 1)
        side = round(pixels**0.5)
        return side if side**2 == pixels else None
    return shortest


def _sides(settings: dict, name: str) -> dict[str, int]:
    """A size among the settings, less the kinds of size that it doesn't give."""
    return {key: value for key, value in (settings.get(name) or {}).items() if value is not None}


def _square(size) -> int:
    """A patch size given as one number or as two equal ones."""
    return int(size if isinstance(size, int) else size[0])


def _configuration(content: dict) -> SimpleNamespace:
    """config.json as an object, with what transformers would fill in."""
    defaults = DEFAULTS.get(content["model_type"], {})
    parts = {
        name: SimpleNamespace(**{**defaults.get(name, {}), **(content.get(name) or {})})
        for name in ("vision_config", "text_config", "perceiver_config")
    }
    return SimpleNamespace(**{**defaults, **content, **parts})
