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
from lossmap.vlm.receives import ALL


def _raster(pre, config, grid):
    """(images * patches, features) already in raster order."""
    return pre


def _pixel_shuffled(pre, config, grid):
    """Squares of s x s patches were concatenated along the features before the connector: take them apart again."""
    return _apart(pre, grid, _inverse_ratio(config))


def _strided(pre, config, grid):
    """Ovis2: the same."""
    return _apart(pre, grid, _stride(config))


def _apart(pre, grid, s):
    (rows, cols), features = grid, pre.shape[-1] // s**2
    cells = pre.reshape(-1, rows // s, cols // s, s, s, features)
    return cells.permute(0, 1, 3, 2, 4, 5)


def _merge_blocks(pre, config, grid):
    """Patches come in blocks of m x m, the blocks in raster order."""
    return _from_blocks(pre, config, grid, None)


def _windows(pre, config, grid):
    """Patches come in blocks of m x m, and the blocks by attention window."""
    import torch
    from transformers.vision_utils import get_vision_window_index

    vision = config.vision_config
    thw = torch.tensor([[1, *grid]])
    order, _ = get_vision_window_index(thw, vision.spatial_merge_size, vision.window_size, vision.patch_size)
    return _from_blocks(pre, config, grid, order)


def _from_blocks(pre, config, grid, block_order):
    import torch

    (rows, cols), m = grid, config.vision_config.spatial_merge_size
    blocks = torch.arange(rows * cols).view(rows // m, m, cols // m, m).permute(0, 2, 1, 3).reshape(-1, m * m)
    position = (blocks if block_order is None else blocks[block_order]).flatten()  # row r of pre is this raster patch
    return pre.reshape(-1, rows * cols, pre.shape[-1])[:, position.argsort().to(pre.device)]


def _as_it_is(pre, config, grid):
    return (pre,)


def _spaced(pre, config, grid):
    """LLaVA: patches that don't follow on each other in memory, as where a tower cut its class token off. PyTorch then
    rounds between product and bias too, which in bfloat16 moves post by 4 thousandths."""
    features = pre.shape[2]
    held = pre.new_empty((*pre.shape[:2], features + 1))
    held[..., :features] = pre
    return (held[..., :features],)


def _with_mask(pre, config, grid):
    """Idefics2: and which patches are no padding: all of them."""
    import torch

    return pre, torch.ones(pre.shape[:2], dtype=torch.bool, device=pre.device)


def _with_sizes(pre, config, grid):
    """Mistral 3: all images in one list, and each one's size in pixels."""
    patch = config.vision_config.patch_size
    return pre.flatten(0, 1), [(grid[0] * patch, grid[1] * patch)] * len(pre)


def _squares_joined(pre, config, grid):
    """InternVL: the patches of each square side by side along the features."""
    return (_squares(pre, grid, _inverse_ratio(config)).flatten(2),)


def _squares_of_stride(pre, config, grid):
    """Ovis2: the same."""
    return (_squares(pre, grid, _stride(config)).flatten(2),)


def _squares_listed(pre, config, grid):
    """Qwen: all images in one list, square by square. A square's token depends on the square alone, so that it needs no
    windows and gives tokens in raster order."""
    return (_squares(pre, grid, _spatial_merge(config)).flatten(0, 2),)


def _maps(pre, config, grid):
    """(images, features, rows, columns)."""
    return pre.flatten(2).transpose(1, 2)


def _unpadded(pre, config, grid):
    """Gemma 4: raster, then what pads an image to its budget of patches."""
    return pre[:, : grid[0] * grid[1]]


def _with_places(pre, config, grid):
    """And each patch's column and row, that none is padding, and the number of tokens."""
    import torch

    (rows, cols), (images, patches, _) = grid, pre.shape
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).flip(1).to(pre.device)
    padding = torch.zeros(images, patches, dtype=torch.bool, device=pre.device)
    return pre, places.expand(images, -1, -1), padding, patches // _pooled_squares(config) ** 2


def _as_maps(pre, config, grid):
    return (pre.transpose(1, 2).unflatten(2, grid),)


def _map_blocks(pre, config, grid):
    """GLM: blocks of m x m as small maps, (blocks, features, m, m), in raster order."""
    return _merge_blocks(_maps(pre, config, grid), config, grid)


def _squares_as_maps(pre, config, grid):
    m = _spatial_merge(config)
    squares = _squares(pre, grid, m).flatten(0, 1)
    return (squares.transpose(1, 2).unflatten(2, (m, m)),)


def _image_features(model, family, inputs):
    """What `get_image_features` gives."""
    return model.get_image_features(**inputs)


def _kosmos2(model, family, inputs):
    """The same, which Kosmos-2's class that generates has no function for."""
    import torch

    made = model.vision_model(**inputs)
    patches = torch.nn.functional.normalize(model.vision_model.model.post_layernorm(made[0]), dim=-1)
    made.pooler_output = family.apply(model, family.connector, (patches,))
    return made


def _packed(pre, config, grid):
    """MiniCPM-V: all views in one row, and the grid of each."""
    import torch

    return pre.reshape(1, -1, pre.shape[-1]), torch.tensor([grid] * len(pre), device=pre.device)


def _connector_alone(model, connector, given):
    """post (tokens, features_out), however shaped, of what a connector takes."""
    return model.get_submodule(connector)(*given)


def _first_of(model, connector, given):
    """Kosmos-2: beside post, the connector gives its attention."""
    return _connector_alone(model, connector, given)[0]


def _then_merger(model, connector, given):
    """GLM: a convolution takes each square to a vector, and the merger that vector."""
    return model.visual.merger(_connector_alone(model, connector, given).flatten(1))


def _each_in_a_list(model, connector, given):
    """MiniCPM-V: a tensor for each view."""
    import torch

    return torch.stack(_connector_alone(model, connector, given))


def _pooled_then_embedded(model, connector, given):
    """Gemma 4: means over squares of patches, standardised where the configuration says so, then the projection."""
    tower = model.vision_tower
    pooled, _ = _connector_alone(model, connector, given)
    if tower.config.standardize:
        pooled = (pooled - tower.std_bias.float()) * tower.std_scale.float()
    return model.embed_vision(pooled.to(given[0].dtype))


def _words_of_a_table(model, connector, given):
    """Ovis2: each token is a mean over a table of visual words, weighted by their probabilities, or the likeliest."""
    import torch

    tower, table = model.vision_tower, model.visual_embeddings_table
    logits = tower.head_norm(_connector_alone(model, connector, given))
    shares = logits.softmax(-1)
    if tower.config.tokenize_function == "st_argmax":
        shares = torch.nn.functional.one_hot(shares.argmax(-1), shares.shape[-1]).to(logits.dtype)
    return table(torch.nn.functional.pad(shares, (0, tower.num_visual_indicator_tokens)))


def _visual_marks(model):
    """Ovis2: what stands for the marks around an image and between its tiles: the last words of the table."""
    return {"visual_indicator_features": model.visual_embeddings_table.weight[-len(model.visual_indicator_token_ids) :]}


def _squares(pre, grid, side):
    """(images, squares, side * side, features): patches by squares of side x side, squares in raster order."""
    (rows, cols), (images, _, features) = grid, pre.shape
    cells = pre.reshape(images, rows // side, side, cols // side, side, features).permute(0, 1, 3, 2, 4, 5)
    return cells.reshape(images, -1, side * side, features)


def _vision_width(config) -> int:
    """Of the tower's vectors, side by side where the connector is given several layers."""
    names = ("vision_feature_layer", "vision_feature_layers")  # ViP-LLaVA's hub checkpoints say the latter
    layers = next((getattr(config, name) for name in names if hasattr(config, name)), None)
    return config.vision_config.hidden_size * (len(layers) if isinstance(layers, list | tuple) else 1)


def _inverse_ratio(config) -> int:
    return round(1 / config.downsample_ratio)


def _one(config) -> int:
    return 1


def _spatial_merge(config) -> int:
    return config.vision_config.spatial_merge_size


def _pooled_squares(config) -> int:
    return config.vision_config.pooling_kernel_size


def _merged_within(config) -> int:
    return 1 if config.downsample_mode == "4x" else 2


def _merge_rounds(config) -> int:
    return config.merge_kernel_size[0] ** config.merger_times


def _stride(config) -> int:
    return config.vision_config.hidden_stride


def _resampled(config) -> int:
    return config.perceiver_config.resampler_n_latents


def _deepstack(config) -> int:
    return len(config.vision_config.deepstack_visual_indexes)


def _gemma3_pool(config) -> int:
    patches_per_side = config.vision_config.image_size // config.vision_config.patch_size
    return patches_per_side // round(config.mm_tokens_per_image**0.5)


@dataclass(frozen=True)
class Family:
    """One model family.

    connector: the module of the base model whose input is pre.
    inputs: what `get_image_features` takes.
    merge: from the config, m where post is a raster of (rows / m) x (cols / m) tokens; None where post has no grid.
    view: how one image becomes one square input: "whole", the processor's own resize and centre crop; "base", the whole
        view of a family that also cuts tiles; "any", a family that takes any size, given S x S pixels; "longest",
        scaled to S along the longer side, then to S x S; "padded", scaled to S along the longer side, in the middle of
        a square of the mean colour.
    vision_keys: how the names of the vision side's tensors begin in a checkpoint, after an optional "model.".
    to_raster: pre as the hook saw it, less `extra` -> the same numbers with patches in raster order.
    arguments: pre (images, extra + patches, features), patches in raster order -> what the connector takes, for tokens
        in post's order.
    pre_dim: from the config, the features of a patch, as they enter one connector.
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
    to_raster: Callable = _raster
    arguments: Callable = _as_it_is
    pre_dim: Callable[[Any], int] = _vision_width
    newline: int = 0
    latents: Callable[[Any], int] | None = None
    own_view: str | None = None
    after: tuple[str, ...] = ()
    apply: Callable = _connector_alone
    unread: tuple[str, ...] = ()
    stacked: str | None = None
    stack_size: Callable[[Any], int] | None = None
    extra: int = 0
    run: Callable = _image_features
    cell: Callable[[Any], int] | None = None
    spoken: tuple[str, ...] = ()
    beside: Callable[[Any], dict[str, Any]] | None = None

    def fits(self, model: Any) -> bool:
        """Whether a model in memory can be given images."""
        return self.run is not _image_features or hasattr(model, "get_image_features")

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
_GRID = ("pixel_values", "image_grid_thw")
_LLAVA_NEXT = ("multi_modal_projector", _SIZES, _one, "base", (*_TOWER, "image_newline"))
_DEEPSTACK: dict[str, Any] = {"stacked": "visual.deepstack_merger_list", "stack_size": _deepstack}
_GLM: dict[str, Any] = {"after": ("visual.merger",), "apply": _then_merger, "own_view": "native_frames"}
_GLM_TAP = ("visual.downsample", _GRID, _spatial_merge, "any", ("visual.",), _map_blocks, _squares_as_maps)
_ALIGNER = ("aligner", _PIXELS, _one, "padded", ("vision_model.", "aligner."))
_QWEN = ("visual.merger", _GRID, _spatial_merge, "any", ("visual.",))

FAMILIES: dict[str, Family] = {
    "llava": Family("multi_modal_projector", _PIXELS, _one, "whole", _TOWER, arguments=_spaced),
    "llava_next": Family(*_LLAVA_NEXT, arguments=_spaced, newline=1, own_view="any_resolution"),
    "llava_onevision": Family(*_LLAVA_NEXT, arguments=_spaced, newline=1, own_view="any_resolution"),
    "paligemma": Family("multi_modal_projector", _PIXELS, _one, "whole", _TOWER),
    "gemma3": Family("multi_modal_projector", _PIXELS, _gemma3_pool, "whole", _TOWER, own_view="pan_and_scan"),
    "gemma4": Family(
        *("vision_tower.pooler", _PLACES, _pooled_squares, "any", ("vision_tower.", "embed_vision."), _unpadded),
        arguments=_with_places,
        own_view="budget",
        after=("embed_vision", "vision_tower.std_bias", "vision_tower.std_scale"),
        apply=_pooled_then_embedded,
        unread=("audio_tower", "embed_audio"),
    ),
    "aya_vision": Family(
        "multi_modal_projector", _PIXELS, lambda c: c.downsample_factor, "whole", _TOWER, own_view="tiles"
    ),
    "internvl": Family(
        *("multi_modal_projector", _PIXELS, _inverse_ratio, "whole", _TOWER, _pixel_shuffled, _squares_joined),
        own_view="tiles",
    ),
    "ovis2": Family(
        *("vision_tower.head_linear", _PIXELS, _stride, "whole", ("vision_tower.", "visual_embeddings_table.")),
        *(_strided, _squares_of_stride),
        own_view="whole_first",
        after=("vision_tower.head_norm", "visual_embeddings_table"),
        apply=_words_of_a_table,
        spoken=("visual_embeddings_table.",),
        beside=_visual_marks,
    ),
    "minicpmv4_6": Family(
        *("merger", ("pixel_values", "target_sizes"), _merge_rounds, "any", ("vision_tower.", "merger.")),
        arguments=_packed,
        own_view="slices",
        apply=_each_in_a_list,
        cell=_merged_within,
    ),
    "idefics2": Family(
        *("connector", _MASK, None, "any", _IDEFICS), arguments=_with_mask, latents=_resampled, own_view="bounded"
    ),
    "idefics3": Family("connector", _MASK, lambda c: c.scale_factor, "longest", _IDEFICS, own_view="split"),
    "smolvlm": Family("connector", _MASK, lambda c: c.scale_factor, "longest", _IDEFICS, own_view="split"),
    "qwen2_vl": Family(
        *(*_QWEN, _merge_blocks, _squares_listed), pre_dim=lambda c: c.vision_config.embed_dim, own_view="native"
    ),
    "qwen2_5_vl": Family(*_QWEN, _windows, _squares_listed, own_view="native"),
    "qwen3_vl": Family(*_QWEN, _merge_blocks, _squares_listed, own_view="native", **_DEEPSTACK),
    "qwen3_vl_moe": Family(*_QWEN, _merge_blocks, _squares_listed, own_view="native", **_DEEPSTACK),
    "qwen3_5": Family(*_QWEN, _merge_blocks, _squares_listed, own_view="native"),
    "qwen3_5_moe": Family(*_QWEN, _merge_blocks, _squares_listed, own_view="native"),
    "exaone4_5": Family(*_QWEN, _windows, _squares_listed, own_view="native"),
    **dict.fromkeys(("glm4v", "glm4v_moe", "glm46v", "glm_ocr"), Family(*_GLM_TAP, **_GLM)),
    "mistral3": Family(
        *("multi_modal_projector", _SIZES, lambda c: c.spatial_merge_size, "any", _TOWER),
        arguments=_with_sizes,
        own_view="longest",
    ),
    "lighton_ocr": Family(
        *("vision_projection", _SIZES, lambda c: c.spatial_merge_size, "any"),
        ("vision_encoder.", "vision_projection."),
        arguments=_with_sizes,
        own_view="longest_in_patches",
    ),
    "vipllava": Family("multi_modal_projector", _PIXELS, _one, "whole", _TOWER),
    "got_ocr2": Family(
        *("multi_modal_projector", _PIXELS, lambda c: 4, "whole", _TOWER, _maps, _as_maps),
        pre_dim=lambda c: c.vision_config.output_channels,
    ),
    "deepseek_vl": Family(*_ALIGNER),
    "kosmos-2": Family(
        *("image_to_text_projection", _PIXELS, None, "whole", ("vision_model.", "image_to_text_projection.")),
        latents=lambda c: c.latent_query_num,
        apply=_first_of,
        extra=1,
        run=_kosmos2,
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
