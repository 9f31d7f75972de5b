"""The vision side of a vision-language model: tower and connector, without the language model."""

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import logging as transformers_logging

from lossmap.errors import LossmapError
from lossmap.vlm.adapters import Adapter
from lossmap.vlm.checkpoints import adapter_of, resolve_checkpoint, weight_files
from lossmap.vlm.families import Family, is_connector_key, is_vision_key, read_family
from lossmap.vlm.merging import merge_adapter
from lossmap.vlm.preprocessing import Preprocessor, load_preprocessor
from lossmap.vlm.tap import Tap

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TEXT_PARTS = ("language_model", "text_model")


class VisionSide:
    """A vision tower and its connector, ready to embed. The model is as it was before, between two calls of `embed`.

    model_type, family, config: what the checkpoint is; config is the checkpoint's own, unchanged.
    checkpoint, revision: where it comes from, None where that isn't known.
    preprocessor: makes its pixel inputs.  dtype, device: of the vision tower's weights.
    pre_grid: (rows, cols) of patches before the connector; pre_dim: their width.
    post_grid: (rows, cols) of the tokens after it, None where they have no place in the image; post_tokens: how many
        the language model receives (LLaVA-NeXT and -OneVision end with one `image_newline` after the grid); post_dim:
        their width.
    """

    def __init__(
        self,
        model_type: str,
        family: Family,
        config: PreTrainedConfig,
        model: PreTrainedModel,
        preprocessor: Preprocessor,
        revision: str | None,
        checkpoint: str | Path | None = None,
    ):
        self.model_type, self.family, self.config, self.model = model_type, family, config, model
        self.preprocessor, self.revision = preprocessor, revision
        self.checkpoint = None if checkpoint is None else str(checkpoint)
        first = next(values for name, values in model.named_parameters() if is_vision_key(family, name))
        self.dtype: torch.dtype = first.dtype
        self.device: torch.device = first.device
        self.pre_grid: tuple[int, int] = preprocessor.grid
        self._tap = Tap(model, family.connector, one_view=family.view == "base")
        rows, cols = preprocessor.grid
        merge = family.merge(config) if family.merge else None
        self.post_grid: tuple[int, int] | None = (rows // merge, cols // merge) if merge else None

        # One plain image through the network: widths as they are, and a layout that isn't understood shows here.
        probe = Image.new("RGB", (cols, rows), (150, 90, 30))
        pre, post = self.embed(preprocessor.normalise(preprocessor.prepare([probe]), self.device, self.dtype))
        self.pre_dim: int = pre.shape[2]
        self.post_tokens, self.post_dim = post.shape[1:]
        if merge and self.post_tokens != (rows // merge) * (cols // merge) + family.newline:
            raise LossmapError(
                f"{model_type}: {self.post_tokens} tokens leave the connector, which is not a grid of {self.post_grid}."
                " Use an image_size that the model's configuration provides for."
            )

    @torch.inference_mode()
    def embed(self, pixel_inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed a batch of images. Threads may call it at the same time.

        Parameters: pixel_inputs, from `preprocessor.normalise(batch, vision.device, vision.dtype)`.
        Returns: pre (images, patches, pre_dim), what enters the connector, patches in raster order of the model's input
            image; post (images, post_tokens, post_dim), what the language model receives, in its order.
        Raises: LossmapError if the patches don't form the expected grid.
        """
        with self._tap as tap:
            post = cast(Any, self.model).get_image_features(**pixel_inputs).pooler_output
            seen = tap.take()
        post = post if torch.is_tensor(post) else torch.stack(list(post))
        rows, cols = self.pre_grid
        images = len(pixel_inputs.get("image_grid_thw", pixel_inputs["pixel_values"]))
        pre = self.family.to_raster(seen, self.config, self.pre_grid)
        if (vectors := pre.shape[:-1].numel()) != images * rows * cols or len(post) != images:
            raise LossmapError(
                f"{self.model_type}: {images} images gave {vectors} vectors before the connector and {len(post)}"
                f" sequences after it, not {rows} x {cols} patches each. Lossmap doesn't know this layout: check"
                " image_size and the configuration's vision_feature_select_strategy."
            )
        return pre.reshape(images, rows * cols, -1), post

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, over names, dtypes, shapes and bytes of the vision side's weights: the same for the same
        weights in the same precision, whatever the checkpoint's spelling and sharding. Of a model that was loaded
        whole, tower layers that nobody reads count too, and so does an adapter."""
        state = self.model.state_dict().items()
        return digest_of({name: values for name, values in state if is_vision_key(self.family, name)})

    @cached_property
    def connector_digest(self) -> str:
        """The same over the connector's weights alone: over all that post depends on beside pre."""
        return connector_digest(self.family, self.model)

    @property
    def provenance(self) -> dict[str, str | None]:
        """What embeddings came from: model_type, revision, digests of all weights and of the connector's."""
        return {
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
) -> VisionSide:
    """Load a model's vision tower and connector. Its language model is neither built nor read.

    Parameters: checkpoint and revision, see `resolve_checkpoint`; dtype, float32, bfloat16 or float16 (the Qwen towers
        overflow in float16); device, a torch device; image_size, see `load_preprocessor`.
    Raises: LossmapError if the checkpoint can't be had, is of no known family, or lacks weights of the vision side.
    """
    precision = precision_of(dtype)
    folder = resolve_checkpoint(checkpoint, revision)
    preprocessor = load_preprocessor(folder, image_size=image_size)
    model_type, family = read_family(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model_class = cast("type[PreTrainedModel]", MODEL_MAPPING[type(config)])
    adapter = adapter_of(checkpoint)
    model = load_base_model(checkpoint, folder, config, model_class, is_vision_key, precision, adapter)
    for part in TEXT_PARTS:
        if hasattr(model, part):
            setattr(model, part, None)
    return VisionSide(model_type, family, config, placed(model, device), preprocessor, revision, checkpoint)


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
            config=_without_text(config, family),
            state_dict=_tensors(folder, lambda key: wanted(family, key)),
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

    Reduced.__name__ = Reduced.__qualname__ = model_class.__name__
    return Reduced


def connector_digest(family: Family, model: PreTrainedModel) -> str:
    """`digest_of` what makes post of pre in a base model: the same whether its tower was loaded or not."""
    return digest_of({name: values for name, values in model.state_dict().items() if is_connector_key(family, name)})


def digest_of(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256, in hex, over names, dtypes, shapes and bytes of tensors, in the order of their names."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _without_text(config: PreTrainedConfig, family: Family) -> PreTrainedConfig:
    """The same configuration with a language model of no layers and one word, and no tower layers that nobody reads."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    text.num_hidden_layers, text.vocab_size, text.pad_token_id = 0, 1, None
    if getattr(text, "layer_types", None) is not None:
        text.layer_types = []
    layer, vision = getattr(config, "vision_feature_layer", None), config.vision_config
    # CLIP's hidden states are the plain outputs of its layers, so those after the one that's read change nothing.
    if isinstance(layer, int) and vision.model_type == "clip_vision_model":
        vision.num_hidden_layers = layer if layer >= 0 else vision.num_hidden_layers + 1 + layer
        config.vision_feature_layer = -1
    if family.view == "base":
        config.image_grid_pinpoints = [[0, 0]]  # no tiles: the base view alone
    return config


def _tensors(folder: Path, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    """The wanted tensors of the vision side, by their names in the checkpoint, less a leading "model.": transformers'
    own conversions do the rest, but of `model.visual.` in Qwen2-VL and Qwen2.5-VL they make something else."""
    tensors = {}
    for name in weight_files(folder):
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
