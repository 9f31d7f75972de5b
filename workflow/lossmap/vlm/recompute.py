"""post from stored pre, through the frozen connector: no image, no vision tower, no language model."""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from lossmap.errors import LossmapError
from lossmap.vlm.checkpoints import adapter_of, resolve_checkpoint
from lossmap.vlm.families import Family, is_connector_key, read_family
from lossmap.vlm.loading import connector_digest, load_base_model, placed, precision_of, reduced
from lossmap.vlm.preprocessing import load_preprocessor

# Idefics2's connector holds some 100 MB for each image on its way, in float32.
BATCH = 16


class Connector:
    """A model's connector and what follows it on the way to the language model.

    Call it with pre (n, patches, features), a tensor or an array of any floating dtype, patches in raster order as they
    lie in a store. It returns post (n, tokens, features_out), a float32 array: what `VisionSide.embed` gives with this
    pre, up to the rounding of sums taken in batches of another size. It raises LossmapError if pre has another shape
    than the connector takes.

    checkpoint: as messages call it.  model_type, family, config: what it is.  dtype, device: of the weights, in which
        it computes.  grid: (rows, cols) of patches.  pre_shape: (patches, features).  post_shape: (tokens,
        features_out).  digest: of the weights in use, the `connector_digest` of a VisionSide of the same checkpoint.
    """

    def __init__(self, checkpoint, model_type, family, config, model, grid):
        self.checkpoint: str = str(checkpoint)
        self.model_type: str = model_type
        self.family: Family = family
        self.config: PreTrainedConfig = config
        self.model: PreTrainedModel = model
        self.dtype: torch.dtype = model.dtype
        self.device: torch.device = model.device
        self.grid: tuple[int, int] = grid
        self.digest: str = connector_digest(family, model)
        self.pre_shape: tuple[int, int] = (grid[0] * grid[1], family.pre_dim(config))
        with torch.inference_mode():
            self.post_shape: tuple[int, int] = tuple(self.post(torch.zeros(1, *self.pre_shape)).shape[1:])

    @torch.inference_mode()
    def __call__(self, pre: torch.Tensor | np.ndarray) -> np.ndarray:
        if pre.ndim != 3 or tuple(pre.shape[1:]) != self.pre_shape:
            raise LossmapError(
                f"{self.checkpoint}: its connector takes {self.pre_shape[0]} patches of {self.pre_shape[1]} features"
                f" per image, these embeddings have the shape {tuple(pre.shape)}. They were made by another model, or"
                " with another image_size: extract them again."
            )
        post = np.empty((len(pre), *self.post_shape), dtype=np.float32)
        for start in range(0, len(pre), BATCH):
            rows = slice(start, start + BATCH)
            post[rows] = self.post(torch.as_tensor(pre[rows])).float().cpu().numpy()
        return post

    def post(self, pre: torch.Tensor) -> torch.Tensor:
        """The same of one batch, as a tensor of this dtype on this device. Gradients flow where they are on."""
        pre = pre.to(self.device, self.dtype).contiguous()  # the same sums, however pre lay in memory
        given = self.family.arguments(pre, self.config, self.grid)
        post = self.model.get_submodule(self.family.connector)(*given)
        post = post.reshape(len(pre), -1, post.shape[-1])
        if not self.family.newline:
            return post
        newline = cast(torch.Tensor, self.model.image_newline).expand(len(pre), self.family.newline, -1)
        return torch.cat([post, newline], dim=1)


def load_connector(
    checkpoint: str | Path,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    image_size: int | None = None,
) -> Connector:
    """Load a model's connector. Neither its vision tower nor its language model is built or read.

    Parameters: as `load_vision_side`, of which the embeddings came.
    Raises: LossmapError if the checkpoint can't be had, is of no known family, or lacks weights of the connector.
    """
    precision = precision_of(dtype)
    folder = resolve_checkpoint(checkpoint, revision)
    grid = load_preprocessor(folder, image_size=image_size).grid
    model_type, family = read_family(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    whole = cast("type[PreTrainedModel]", MODEL_MAPPING[type(config)])
    model_class = reduced(whole, lambda model: _keep_only(model, family.connector))
    model = load_base_model(
        checkpoint, folder, config, model_class, is_connector_key, precision, adapter_of(checkpoint)
    )
    return Connector(checkpoint, model_type, family, config, placed(model, device), grid)


def connector_of(key: dict, device: str = "cpu") -> Connector:
    """The connector that embeddings came through.

    Parameters: key, the attribute of that name of their store; device, a torch device.
    Raises: LossmapError if the key is of a Lossmap that didn't record connectors, or the checkpoint's connector
        is another one by now; as `load_connector`.
    """
    if "connector_digest" not in key:
        raise LossmapError(
            f"{key.get('checkpoint')}: embeddings of this model don't say which connector made them: an earlier"
            " version of Lossmap wrote them. Extract them again."
        )
    how = {name: key[name] for name in ("checkpoint", "revision", "image_size")}
    connector = load_connector(**how, dtype=key["compute_dtype"], device=device)
    if connector.digest != key["connector_digest"]:
        raise LossmapError(
            f"{connector.checkpoint}: the weights of its connector are not those that made the embeddings"
            f" ({connector.digest[:12]}, not {key['connector_digest'][:12]}). Put the checkpoint of then back,"
            " or extract the embeddings again."
        )
    return connector


def _keep_only(module: torch.nn.Module, path: str) -> None:
    """Drop every module but the one at this path."""
    head, _, rest = path.partition(".")
    for name, _ in list(module.named_children()):
        if name != head:
            setattr(module, name, None)
    if rest:
        _keep_only(getattr(module, head), rest)
