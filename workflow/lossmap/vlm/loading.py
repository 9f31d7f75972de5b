"""The vision side of a vision-language model: tower and connector, without the language model."""

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import logging as transformers_logging

from lossmap.errors import LossmapError
from lossmap.store.layouts import Layout, Shape, one_view
from lossmap.vlm.adapters import Adapter
from lossmap.vlm.checkpoints import adapter_of, resolve_checkpoint, weight_files
from lossmap.vlm.families import Family, is_connector_key, is_vision_key, read_family
from lossmap.vlm.merging import merge_adapter
from lossmap.vlm.preprocessing import Preprocessor, load_preprocessor
from lossmap.vlm.receives import ALL, receives_problem
from lossmap.vlm.tap import ONE_VIEW, Tap
from lossmap.vlm.tiled import TiledPreprocessor
from lossmap.vlm.view_limits import SQUARE, View
from lossmap.vlm.views import AnyRes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TEXT_PARTS = ("language_model", "text_model")
# Width and height of plain images, of which the one that makes the fewest patches goes through a network when it is
# opened. Tiles depend on the shape, not on the size: 13 of the first one in SmolVLM take a core two minutes.
PROBES = ((96, 64), (64, 64), (128, 32))


class VisionSide:
    """A vision tower and its connector, ready to embed. The model is as it was before, between two calls of `embed`.

    model_type, family, config: what the checkpoint is; config is the checkpoint's own, unchanged.
    checkpoint, revision: where it comes from, None where that isn't known.
    view: how it sees images, see `view_limits`.  preprocessor: makes its pixel inputs.
    dtype, device: of the vision tower's weights.
    receives: what pre and post are of a model with several connectors (DeepStack), see `lossmap.vlm.receives`.
    taps: names of the connectors whose inputs are side by side in pre, and their outputs in post.
    pre_dim: width of a patch before the connectors; post_dim: of a token after them.
    pre_grid: (rows, cols) of patches; post_grid: of tokens, None where they have no place in the image; post_tokens:
        how many the language model receives (LLaVA-NeXT and -OneVision end with one `image_newline` after the grid).
        All three are None of a model whose views depend on the image.
    """

    def __init__(
        self,
        model_type: str,
        family: Family,
        config: PreTrainedConfig,
        model: PreTrainedModel,
        preprocessor: Preprocessor | TiledPreprocessor,
        revision: str | None,
        checkpoint: str | Path | None = None,
        view: View = SQUARE,
        receives: str = ALL,
    ):
        if problem := receives_problem(str(checkpoint or model_type), family, receives):
            raise LossmapError(problem)
        self.model_type, self.family, self.config, self.model = model_type, family, config, model
        self.preprocessor, self.revision = preprocessor, revision
        self.checkpoint = None if checkpoint is None else str(checkpoint)
        self.view = view
        first = next(values for name, values in model.named_parameters() if _of_tower(family, name))
        self.dtype: torch.dtype = first.dtype
        self.device: torch.device = first.device
        self.receives = receives
        self.taps: list[str] = [family.connector, *family.further(config, receives)]
        self._tap = Tap(model, self.taps, _resolutions(family, preprocessor), family.argument)
        self.pre_grid: tuple[int, int] | None = None
        self.post_grid: tuple[int, int] | None = None
        self.post_tokens: int | None = None

        # One plain image through the network: widths as they are, and a layout that isn't understood shows here.
        if isinstance(preprocessor, TiledPreprocessor):
            size = min(PROBES, key=lambda size: preprocessor.layout(*size).shape.patches)
            pre, post = self.embed_image(Image.new("RGB", size, (150, 90, 30)))
        else:
            rows, cols = self.pre_grid = preprocessor.grid
            merge = family.merge(config) if family.merge else None
            self.post_grid = (rows // merge, cols // merge) if merge else None
            pre, post = self.embed_image(Image.new("RGB", (cols, rows), (150, 90, 30)))
            self.post_tokens = post.shape[1]
            if merge and self.post_tokens != family.before + (rows // merge) * (cols // merge) + family.newline:
                raise LossmapError(
                    f"{model_type}: {self.post_tokens} tokens leave the connector, which is not a grid of"
                    f" {self.post_grid}. Use an image_size that the model's configuration provides for."
                )
        self.pre_dim: int = pre.shape[2]
        self.post_dim: int = post.shape[2]

    def embed_image(self, image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
        """`embed` of one image, RGB and upright: pre (1, patches, pre_dim), post (1, tokens, post_dim)."""
        made = self.preprocessor
        shape = made.layout(*image.size).shape if isinstance(made, TiledPreprocessor) else None
        return self.embed(made.normalise(made.prepare([image]), self.device, self.dtype), shape)

    def layout(self, width: int, height: int) -> Layout:
        """How an image of this width and height lies in embeddings."""
        made = self.preprocessor
        if isinstance(made, TiledPreprocessor):
            return made.layout(width, height)
        (rows, cols), family = made.grid, self.family
        shape = one_view(made.grid, self.post_grid, family.extra + rows * cols, self.post_tokens, family.before)
        return Layout(width, height, shape, (made.geometry(width, height).box,))

    @torch.inference_mode()
    def embed(
        self, pixel_inputs: dict[str, torch.Tensor], shape: Shape | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed a batch of images that are alike. Threads may call it at the same time.

        Parameters: pixel_inputs, from `preprocessor.normalise(batch, vision.device, vision.dtype)`; shape, of these
            images' layout, where they are seen in views.
        Returns: pre (images, patches, pre_dim), what enters the connector, patches in raster order of each view of the
            model's input; post (images, tokens, post_dim), what the language model receives, in its order. Of several
            connectors (`taps`) these stand side by side along the features.
        Raises: LossmapError if the patches or the tokens don't form the expected grids.
        """
        with self._tap as tap:
            made = self.family.run(self.model, self.family, pixel_inputs)
            seen = tap.take()
        left = [made.pooler_output, *(made.deepstack_features if len(self.taps) > 1 else ())]
        # All but the first must be called in their order: that of deepstack_features.
        order = [*filter(seen.__contains__, self.taps[:1]), *(name for name in seen if name != self.taps[0])]
        if len(left) != len(self.taps) or order != self.taps:
            raise LossmapError(
                f"{self.model_type}: {len(left)} outputs of the connectors {', '.join(seen)}, not one of each of"
                f" {', '.join(self.taps)}, in this order. Lossmap doesn't know this layout: check the configuration"
                " (deepstack_visual_indexes rise), or set the model's receives to sequence."
            )
        found = []
        for name, out in zip(self.taps, left, strict=True):
            joined = torch.stack if shape is None else torch.cat  # views may differ in size
            post = out if torch.is_tensor(out) else joined(list(out))
            view = partial(self._one_view, pixel_inputs=pixel_inputs) if shape is None else partial(self._views, shape)
            found.append(view(seen[name], post))
        if len(found) == 1:
            return found[0]
        return torch.cat([pre for pre, _ in found], dim=-1), torch.cat([post for _, post in found], dim=-1)

    def _one_view(
        self, seen: torch.Tensor, post: torch.Tensor, pixel_inputs: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows, cols = cast("tuple[int, int]", self.pre_grid)
        counted = ("image_grid_thw", "target_sizes", "pixel_values")
        images = len(next(pixel_inputs[name] for name in counted if name in pixel_inputs))
        extra, seen = self._extra(seen)
        pre = self.family.to_raster(seen, self.config, (rows, cols))
        if (vectors := pre.shape[:-1].numel()) != images * rows * cols or len(post) != images:
            raise LossmapError(
                f"{self.model_type}: {images} images gave {vectors} vectors before the connector and {len(post)}"
                f" sequences after it, not {rows} x {cols} patches each. Lossmap doesn't know this layout: check"
                " image_size and the configuration's vision_feature_select_strategy."
            )
        pre = pre.reshape(images, rows * cols, -1)
        return (pre if extra is None else torch.cat([extra, pre], 1)), post

    def _extra(self, seen: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        """The rows without a place that come before each view's patches, and the patches."""
        extra = self.family.extra
        return (seen[:, :extra], seen[:, extra:]) if extra else (None, seen)

    def _views(self, shape: Shape, seen: torch.Tensor, post: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of images in views. Idefics: a view that is smaller than others lies top left in a frame of their
        size."""
        views = shape.views
        frame = max(view.rows for view in views), max(view.cols for view in views)
        extra, seen = self._extra(seen)
        pre = self.family.to_raster(seen, self.config, frame)
        vectors, tokens = pre.shape[:-1].numel(), post.shape[:-1].numel()
        framed = "pixel_attention_mask" in self.family.inputs
        placed = sum(view.rows * view.cols for view in views)
        each = len(views) * frame[0] * frame[1] if framed else placed
        images = vectors // each
        if not images or vectors != images * each or tokens != images * shape.tokens:
            raise LossmapError(
                f"{self.model_type}: {vectors} vectors before the connector and {tokens} after it don't make whole"
                f" images of {shape.patches} patches and {shape.tokens} tokens. Lossmap doesn't"
                " know this layout: set the model's view to square, or check its configuration."
            )
        if framed:
            frames = pre.reshape(images, len(views), *frame, -1)
            kept = [frames[:, i, : view.rows, : view.cols].flatten(1, 2) for i, view in enumerate(views)]
        else:
            kept = list(pre.reshape(images, placed, -1).split([view.rows * view.cols for view in views], 1))
        if extra is not None:
            first = extra.reshape(images, len(views), *extra.shape[1:])
            kept = [torch.cat([first[:, i], patches], 1) for i, patches in enumerate(kept)]
        return torch.cat(kept, 1), post.reshape(images, shape.tokens, -1)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, over names, dtypes, shapes and bytes of the vision side's weights: the same for the same
        weights in the same precision, whatever the checkpoint's spelling and sharding. Of a model that was loaded
        whole, tower layers that nobody reads count too, and so does an adapter."""
        state = self.model.state_dict().items()
        return digest_of({name: values for name, values in state if is_vision_key(self.family, name)})

    @cached_property
    def connector_digest(self) -> str:
        """The same over the connectors' weights alone: over all that post depends on beside pre."""
        return connector_digest(self.family, self.model, self.receives)

    @property
    def provenance(self) -> dict[str, str | None]:
        """What embeddings came from: model_type, revision, digests of all weights and of the connector's; of a family
        with several connectors, receives."""
        which = {"receives": self.receives} if self.family.stacked else {}
        return which | {
            "model_type": self.model_type,
            "revision": self.revision,
            "digest": self.digest,
            "connector_digest": self.connector_digest,
        }


def load_vision_side(
    checkpoint: str | Path,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    image_size: int | None = None,
    view: View = SQUARE,
    receives: str = ALL,
) -> VisionSide:
    """Load a model's vision tower and connector. Its language model is neither built nor read.

    Parameters: checkpoint and revision, see `resolve_checkpoint`; dtype, float32, bfloat16 or float16 (the Qwen towers
        overflow in float16); device, a torch device; image_size and view, see `load_preprocessor`; receives, see
        `lossmap.vlm.receives`.
    Raises: LossmapError if the checkpoint can't be had, is of no known family, lacks weights of the vision side, or
        receives means nothing to its family.
    """
    precision = precision_of(dtype)
    folder = resolve_checkpoint(checkpoint, revision)
    preprocessor = load_preprocessor(folder, image_size=image_size, view=view)
    model_type, family = read_family(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    whole = cast("type[PreTrainedModel]", MODEL_MAPPING[type(config)])
    model_class = reduced(whole, partial(drop, names=family.unread)) if family.unread else whole
    adapter = adapter_of(checkpoint)
    model = load_base_model(checkpoint, folder, config, model_class, is_vision_key, precision, adapter)
    drop(model, TEXT_PARTS)
    model = placed(model, device)
    return VisionSide(model_type, family, config, model, preprocessor, revision, checkpoint, view, receives)


def drop(model: PreTrainedModel, names: Iterable[str]) -> None:
    """Take modules out of a model, those that it has."""
    for name in names:
        if hasattr(model, name):
            setattr(model, name, None)


def placed(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """The model in evaluation mode, on a device."""
    return cast(Any, model).to(device).eval()  # transformers' type of `to` takes no device


def precision_of(dtype: str) -> torch.dtype:
    """Raises: LossmapError if it is none of `DTYPES`."""
    if dtype not in DTYPES:
        raise LossmapError(f"dtype is {dtype!r}. Choose one of {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def load_base_model(
    checkpoint: str | Path,
    folder: Path,
    config: PreTrainedConfig,
    model_class: type[PreTrainedModel],
    wanted: Callable[[Family, str], bool],
    dtype: torch.dtype,
    adapter: Adapter | None = None,
) -> PreTrainedModel:
    """A base model with an empty language model, of whose checkpoint only the wanted tensors are read.

    Parameters: checkpoint, as messages call it; folder, where it lies; model_class, built from config less its language
        model; wanted, whether a tensor of this family and name is read; dtype, of the weights; adapter, what is merged
        into them.
    Raises: LossmapError if a weight outside the language model is missing or doesn't fit.
    """
    _, family = read_family(folder)
    with quiet():
        model, info = cast(Any, model_class).from_pretrained(
            None,
            config=without_text(config),
            state_dict=read_tensors(folder, lambda key: wanted(family, key)),
            dtype=dtype,
            ignore_mismatched_sizes=True,  # reported below, with the checkpoint's name
            output_loading_info=True,
        )
    info["missing_keys"] = [key for key in info["missing_keys"] if not key.startswith(TEXT_PARTS)]
    check_loaded(checkpoint, "vision", info)
    if adapter is not None:
        merge_adapter(model, adapter, config, lambda name: wanted(family, name))
    return model


def check_loaded(checkpoint: str | Path, side: str, info: dict) -> None:
    """LossmapError if transformers' loading info tells of a weight that is missing or doesn't fit."""
    problems = [f"{key}: missing" for key in info["missing_keys"]]
    problems += [f"{key}: {found}, not {wanted}" for key, found, wanted in info["mismatched_keys"]]
    problems += list(info["error_msgs"])
    if problems:
        raise LossmapError.listing(
            f"{checkpoint}: the weights of the {side} side don't fit its config.json:",
            sorted(problems),
            "Complete the checkpoint: without these, the network would hold random numbers.",
        )


def reduced(model_class: type[PreTrainedModel], drop: Callable[[PreTrainedModel], None]) -> type[PreTrainedModel]:
    """The same model class, whose models lose modules when they are built, so that transformers has no use for their
    tensors. drop: sets them to None.

    It keeps its name and module, by which transformers knows how tensors were spelt in older checkpoints.
    """

    class Reduced(model_class):  # type: ignore[misc, valid-type]  # whose class is known when it runs
        __module__ = model_class.__module__

        def __init__(self, config: PreTrainedConfig, *args: Any, **kwargs: Any):
            super().__init__(config, *args, **kwargs)  # on the meta device: nothing is allocated yet
            drop(self)
            left = {name for name, _ in self.named_parameters(remove_duplicate=False)}
            ties = cast(Any, self).all_tied_weights_keys.items()
            self.all_tied_weights_keys = {one: other for one, other in ties if {one, other} <= left}

    Reduced.__name__ = Reduced.__qualname__ = model_class.__name__
    return Reduced


def connector_digest(family: Family, model: PreTrainedModel, receives: str = ALL) -> str:
    """`digest_of` what makes post of pre in a base model: the same whether its tower was loaded or not."""
    state = model.state_dict().items()
    return digest_of({name: values for name, values in state if is_connector_key(family, name, receives)})


def digest_of(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256, in hex, over names, dtypes, shapes and bytes of tensors, in the order of their names."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def without_text(config: PreTrainedConfig) -> PreTrainedConfig:
    """The same configuration with a language model of no layers and one word, and no tower layers that nobody reads."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    text.num_hidden_layers, text.vocab_size, text.pad_token_id = 0, 1, None
    if hasattr(text, "num_decoder_layers"):  # of an encoder and a decoder (T5), the former are the encoder's
        text.num_decoder_layers = 0
    if getattr(text, "layer_types", None) is not None:
        text.layer_types = []
    layer, vision = getattr(config, "vision_feature_layer", None), config.vision_config
    # CLIP's hidden states are the plain outputs of its layers, so those after the one that's read change nothing.
    if isinstance(layer, int) and vision.model_type == "clip_vision_model":
        vision.num_hidden_layers = layer if layer >= 0 else vision.num_hidden_layers + 1 + layer
        config.vision_feature_layer = -1
    return config


def _of_tower(family: Family, name: str) -> bool:
    return is_vision_key(family, name) and not is_connector_key(family, name)


def _resolutions(family: Family, preprocessor: Preprocessor | TiledPreprocessor) -> list[list[int]] | None:
    """What image_grid_pinpoints are to be while images are embedded, of a family that has them."""
    if family.view != "base":
        return None
    if isinstance(preprocessor, TiledPreprocessor):
        return [list(size) for size in cast(AnyRes, preprocessor.tiling).resolutions]
    return ONE_VIEW


def read_tensors(folder: Path, wanted: Callable[[str], bool], vision_only: bool = True) -> dict[str, torch.Tensor]:
    """The wanted tensors, by default of the vision side, by their names in the checkpoint, less a leading "model.":
    transformers' own conversions do the rest, but of `model.visual.` in Qwen2-VL and Qwen2.5-VL they make something
    else."""
    tensors = {}
    for name in weight_files(folder, vision_only):
        try:
            with safe_open(folder / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118, this is no dict
                    if wanted(key):
                        tensors[key.removeprefix("model.")] = file.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise LossmapError(
                f"{folder / name}: can't be read as safetensors ({error}). Get the file again."
            ) from None
    return tensors


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from reporting the missing language model, and from drawing progress bars."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()
