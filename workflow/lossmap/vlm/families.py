"""What Lossmap must know of each model family: one registry entry each.

transformers gives every vision-language model the same interface: the base model (`AutoModel`) has
`get_image_features(...)`, whose `.pooler_output` is the sequence that the language model receives, in its order; and
the tensor that enters the connector is what a forward pre-hook on one named module sees. Families differ in that
module's name, in how patches are laid out there, and in what they call things in a checkpoint: that is what this file
holds.

Importing it needs neither torch nor transformers, so that a Snakefile can read `FAMILIES` while it is parsed.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lossmap.errors import LossmapError
from lossmap.vlm import connector_calls as calls
from lossmap.vlm import family_sizes as sizes
from lossmap.vlm import patch_orders as orders
from lossmap.vlm.receives import ALL


@dataclass(frozen=True)
class Family:
    """One model family.

    connector: the module of the base model whose input is pre.
    argument: the name of this input; None: the first.
    inputs: what `get_image_features` takes.
    merge: from the config, m where post is a raster of (rows / m) x (cols / m) tokens; None where post has no grid.
    view: how one image becomes one square input: "whole", the processor's own resize and centre crop; "base", the whole
        view of a family that also cuts tiles; "any", a family that takes any size, given S x S pixels; "longest",
        scaled to S along the longer side, then to S x S; "padded", scaled to S along the longer side, in the middle of
        a square of the mean colour; "corner", scaled likewise, top left in a square of black.
    vision_keys: how the names of the vision side's tensors begin in a checkpoint, after an optional "model."; in hub
        checkpoints, too, where they are called otherwise.
    to_raster: pre as the hook saw it, less `extra` -> the same numbers with patches in raster order.
    arguments: pre (images, extra + patches, features), patches in raster order -> what the connector takes, for tokens
        in post's order.
    pre_dim, post_dim: from the config, the features of a patch, as they enter one connector, and of a token after it.
    newline: tokens that follow the grid in post (the learned `image_newline`).
    latents: from the config, the tokens of post where it has no grid.
    after: names of what else makes post of pre: modules that follow the connector, learned tokens and scales.
    apply: model, name of a connector, what `arguments` gives -> post.
    unread: modules of the base model that nobody reads an image with; they are neither built nor read.
    own_view: how its own image processor cuts images (of `view_limits.LIMITS`); None where it always makes one view
        of one size.
    stacked: the list of further connectors, whose outputs the language model is given beside the connector's, token
        for token (DeepStack). They take what the connector takes, of other layers, and are called in their order;
        `get_image_features` gives what leaves each as `deepstack_features`. None where there are none.
    stack_size: from the config, how many these are.
    extra: rows of pre before the patches of each view, which have no place (a class token). The connector is given
        them, so that they are in pre; masks, maps and losses leave them out.
    before: tokens of post before the grid of each view, which have no place.
    run: model, this entry, pixel inputs -> transformers' output, whose `pooler_output` is post.
    cell: from the config, patches along each side that the tower itself makes one vector of before the connector; these
        vectors are then what is called patches. None where it leaves patches alone.
    spoken: of vision_keys, what the language model needs, too.
    beside: base model -> what else `get_image_features` gives that the language model is given and no image changes.
    """

    connector: str
    inputs: tuple[str, ...]
    merge: Callable[[Any], int] | None
    view: str
    vision_keys: tuple[str, ...]
    to_raster: Callable = orders.raster
    arguments: Callable = orders.as_it_is
    pre_dim: Callable[[Any], int] = sizes.vision_width
    post_dim: Callable[[Any], int] = sizes.text_width
    newline: int = 0
    latents: Callable[[Any], int] | None = None
    own_view: str | None = None
    after: tuple[str, ...] = ()
    apply: Callable = calls.connector_alone
    unread: tuple[str, ...] = ()
    stacked: str | None = None
    stack_size: Callable[[Any], int] | None = None
    extra: int = 0
    before: int = 0
    run: Callable = calls.image_features
    cell: Callable[[Any], int] | None = None
    spoken: tuple[str, ...] = ()
    beside: Callable[[Any], dict[str, Any]] | None = None
    argument: str | None = None

    def fits(self, model: Any) -> bool:
        """Whether a model in memory can be given images."""
        if self.run is calls.image_features:
            return hasattr(model, "get_image_features")
        return all(hasattr(model, name) for name in (self.connector, *self.after))

    @property
    def placeless(self) -> bool:
        """Whether rows without a place come before others, so that embeddings must say of each image where rows lie."""
        return bool(self.extra or self.before)

    def further(self, config: Any, receives: str = ALL) -> list[str]:
        """Names of the connectors that are measured beside `connector`, in their order."""
        if receives != ALL or self.stacked is None or self.stack_size is None:
            return []
        return [f"{self.stacked}.{i}" for i in range(self.stack_size(config))]


_TOWER = ("vision_tower.", "multi_modal_projector.")
_IDEFICS = ("vision_model.", "connector.")
_PIXELS = ("pixel_values",)
_SIZES = ("pixel_values", "image_sizes")
_MASK = ("pixel_values", "pixel_attention_mask")
_PLACES = ("pixel_values", "image_position_ids")
_TILES = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
_GRID = ("pixel_values", "image_grid_thw")
_LLAVA_NEXT = ("multi_modal_projector", _SIZES, sizes.one, "base", (*_TOWER, "image_newline"))
_DEEPSTACK: dict[str, Any] = {"stacked": "visual.deepstack_merger_list", "stack_size": sizes.deepstack}
_GLM: dict[str, Any] = {"after": ("visual.merger",), "apply": calls.then_merger, "own_view": "native_frames"}
_GLM_TAP = (
    "visual.downsample",
    _GRID,
    sizes.spatial_merge,
    "any",
    ("visual.",),
    orders.map_blocks,
    orders.squares_as_maps,
)
_ALIGNER = ("aligner", _PIXELS, sizes.one, "padded", ("vision_model.", "aligner."))
_QWEN = ("visual.merger", _GRID, sizes.spatial_merge, "any", ("visual.",))

FAMILIES: dict[str, Family] = {
    "llava": Family("multi_modal_projector", _PIXELS, sizes.one, "whole", _TOWER, arguments=orders.spaced),
    "llava_next": Family(*_LLAVA_NEXT, arguments=orders.spaced, newline=1, own_view="any_resolution"),
    "llava_onevision": Family(*_LLAVA_NEXT, arguments=orders.spaced, newline=1, own_view="any_resolution"),
    "paligemma": Family("multi_modal_projector", _PIXELS, sizes.one, "whole", _TOWER),
    "gemma3": Family("multi_modal_projector", _PIXELS, sizes.gemma3_pool, "whole", _TOWER, own_view="pan_and_scan"),
    "gemma4": Family(
        *(
            "vision_tower.pooler",
            _PLACES,
            sizes.pooled_squares,
            "any",
            ("vision_tower.", "embed_vision."),
            orders.unpadded,
        ),
        arguments=orders.with_places,
        own_view="budget",
        after=("embed_vision", "vision_tower.std_bias", "vision_tower.std_scale"),
        apply=calls.pooled_then_embedded,
        unread=("audio_tower", "embed_audio"),
    ),
    "aya_vision": Family(
        "multi_modal_projector", _PIXELS, lambda c: c.downsample_factor, "whole", _TOWER, own_view="tiles"
    ),
    "internvl": Family(
        *(
            "multi_modal_projector",
            _PIXELS,
            sizes.inverse_ratio,
            "whole",
            _TOWER,
            orders.pixel_shuffled,
            orders.squares_joined,
        ),
        own_view="tiles",
    ),
    "ovis2": Family(
        *("vision_tower.head_linear", _PIXELS, sizes.stride, "whole", ("vision_tower.", "visual_embeddings_table.")),
        *(orders.strided, orders.squares_of_stride),
        own_view="whole_first",
        after=("vision_tower.head_norm", "visual_embeddings_table"),
        apply=calls.words_of_a_table,
        spoken=("visual_embeddings_table.",),
        beside=calls.visual_marks,
    ),
    "minicpmv4_6": Family(
        *("merger", ("pixel_values", "target_sizes"), sizes.merge_rounds, "any", ("vision_tower.", "merger.")),
        arguments=orders.packed,
        own_view="slices",
        apply=calls.each_in_a_list,
        cell=sizes.merged_within,
    ),
    "idefics2": Family(
        *("connector", _MASK, None, "any", _IDEFICS),
        arguments=orders.with_mask,
        latents=sizes.resampled,
        own_view="bounded",
    ),
    "idefics3": Family("connector", _MASK, lambda c: c.scale_factor, "longest", _IDEFICS, own_view="split"),
    "smolvlm": Family("connector", _MASK, lambda c: c.scale_factor, "longest", _IDEFICS, own_view="split"),
    "qwen2_vl": Family(
        *(*_QWEN, orders.merge_blocks, orders.squares_listed),
        pre_dim=lambda c: c.vision_config.embed_dim,
        own_view="native",
    ),
    "qwen2_5_vl": Family(*_QWEN, orders.windows, orders.squares_listed, own_view="native"),
    "qwen3_vl": Family(*_QWEN, orders.merge_blocks, orders.squares_listed, own_view="native", **_DEEPSTACK),
    "qwen3_vl_moe": Family(*_QWEN, orders.merge_blocks, orders.squares_listed, own_view="native", **_DEEPSTACK),
    "qwen3_5": Family(*_QWEN, orders.merge_blocks, orders.squares_listed, own_view="native"),
    "qwen3_5_moe": Family(*_QWEN, orders.merge_blocks, orders.squares_listed, own_view="native"),
    "exaone4_5": Family(*_QWEN, orders.windows, orders.squares_listed, own_view="native"),
    "ernie4_5_vl_moe": Family(
        *("resampler_model", _GRID, sizes.spatial_merge, "any", ("vision_tower.", "vision_model.", "resampler_model.")),
        *(orders.merge_blocks, orders.squares_and_grids),
        own_view="native",
    ),
    **dict.fromkeys(("glm4v", "glm4v_moe", "glm46v", "glm_ocr"), Family(*_GLM_TAP, **_GLM)),
    "mistral3": Family(
        *("multi_modal_projector", _SIZES, lambda c: c.spatial_merge_size, "any", _TOWER),
        arguments=orders.with_sizes,
        own_view="longest",
    ),
    "lighton_ocr": Family(
        *("vision_projection", _SIZES, lambda c: c.spatial_merge_size, "any"),
        ("vision_encoder.", "vision_projection."),
        arguments=orders.with_sizes,
        own_view="longest_in_patches",
    ),
    "vipllava": Family("multi_modal_projector", _PIXELS, sizes.one, "whole", _TOWER),
    "video_llava": Family(
        *("multi_modal_projector", _PIXELS, sizes.one, "whole", ("image_tower.", "multi_modal_projector.")),
        arguments=orders.spaced,
        unread=("video_tower",),
    ),
    "got_ocr2": Family(
        *("multi_modal_projector", _PIXELS, lambda c: 4, "whole", _TOWER, orders.maps, orders.as_maps),
        pre_dim=lambda c: c.vision_config.output_channels,
    ),
    "deepseek_vl": Family(*_ALIGNER),
    "blip-2": Family(
        *("qformer", _PIXELS, None, "whole"),
        ("vision_model.", "qformer.", "query_tokens", "language_projection."),
        argument="encoder_hidden_states",
        latents=lambda c: c.num_query_tokens,
        after=("query_tokens", "language_projection"),
        apply=calls.asked_by_queries,
        extra=1,
        run=calls.tower_then_connector,
    ),
    "kosmos-2": Family(
        *("image_to_text_projection", _PIXELS, None, "whole", ("vision_model.", "image_to_text_projection.")),
        latents=lambda c: c.latent_query_num,
        apply=calls.first_of,
        extra=1,
        run=calls.kosmos2,
    ),
    "mllama": Family(
        *("multi_modal_projector", _TILES, sizes.one, "corner", ("vision_model.", "multi_modal_projector.")),
        pre_dim=sizes.final_and_intermediate,
        own_view="canvas",
        extra=1,
        before=1,
        run=calls.tiles_of_images,
    ),
    "idefics": Family(
        *("perceiver_resampler", _PIXELS, None, "whole", ("vision_model.", "perceiver_resampler.")),
        pre_dim=sizes.embedded,
        post_dim=sizes.embedded,
        latents=sizes.resampled,
        extra=1,
        run=calls.tower_then_connector,
        unread=("embed_tokens", "layers", "gated_cross_attn_layers", "norm"),
    ),
    "janus": Family(*_ALIGNER, unread=("vqmodel", "generation_embeddings", "generation_aligner", "generation_head")),
}


def read_family(folder: Path) -> tuple[str, Family]:
    """The model type that a checkpoint folder's config.json states, and its family.

    Raises: LossmapError if config.json can't be read, or names a family that isn't in the registry.
    """
    path = Path(folder) / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model_type = content.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise LossmapError(f"{path}: can't be read as a model's configuration ({error}). Get the file again.") from None
    if model_type not in FAMILIES:
        close = get_close_matches(str(model_type), FAMILIES, n=1)
        near = f" (near: {close[0]})" if close else ""
        alone = "" if "vision_config" in content else " It has no vision_config: it may be a language model alone."
        raise LossmapError(
            f"{path}: model_type is {model_type!r}, which Lossmap doesn't know{near}."
            f"{alone} Known families: {', '.join(FAMILIES)}."
            " Choose a checkpoint of one of them. `lossmap doctor --checkpoint` with this folder finds the connector,"
            " and prints an entry to try in FAMILIES, lossmap/vlm/families.py."
        )
    return model_type, FAMILIES[model_type]


def is_vision_key(family: Family, key: str, but: tuple[str, ...] = ()) -> bool:
    """Whether a tensor of this name in a checkpoint belongs to the vision tower or the connector; but: names that
    aren't asked for."""
    name = key.removeprefix("model.")
    return name.startswith(family.vision_keys) and not name.startswith(but)


def is_connector_key(family: Family, key: str, receives: str = ALL) -> bool:
    """Whether a tensor of this name belongs to what makes post of pre: the connectors, or a learned token after them.

    receives: see `lossmap.vlm.receives`.
    """
    stacked = (family.stacked,) if family.stacked and receives == ALL else ()
    names = (family.connector, "image_newline", *family.after, *stacked)
    return f"{key.removeprefix('model.')}.".startswith(tuple(f"{name}." for name in names))
