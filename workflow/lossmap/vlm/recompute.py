"""post from stored pre, through the frozen connector: no image, no vision tower, no language model."""

from functools import lru_cache, partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from lossmap.errors import LossmapError
from lossmap.store.layouts import Shape, ViewShape, joined, one_view
from lossmap.vlm.checkpoints import adapter_of, resolve_checkpoint
from lossmap.vlm.families import FAMILIES, Family, is_connector_key, read_family
from lossmap.vlm.loading import connector_digest, load_base_model, placed, precision_of, reduced
from lossmap.vlm.preprocessing import Preprocessor, load_preprocessor
from lossmap.vlm.receives import ALL, received, receives_problem
from lossmap.vlm.view_limits import SQUARE, View

# Idefics2's connector holds some 100 MB for each image on its way, in float32.
BATCH = 16


class Connector:
    """A model's connector and what follows it on the way to the language model; of a DeepStack model all connectors,
    each on its own part of pre, unless it receives the sequence alone.

    Call it with pre (n, patches, features), a tensor or an array of any floating dtype, patches in raster order as they
    lie in a store, and with the shape of these images' layout where they were seen in views. It returns post (n,
    tokens, features_out), a float32 array: what `VisionSide.embed` gives with this pre, up to the rounding of sums
    taken in batches of another size. It raises LossmapError if pre has another shape than the connector takes.

    checkpoint: as messages call it.  model_type, family, config: what it is.  dtype, device: of the weights, in which
        it computes.  connectors: names of the modules.  features, features_out: of pre and post.  shape: of all images'
        layout; pre_shape (patches, features) and post_shape (tokens, features_out); the three are None where images
        differ.  digest: of the weights in use, the `connector_digest` of a VisionSide of the same checkpoint.
    """

    def __init__(self, checkpoint, model_type, family, config, model, grid, example, receives=ALL):
        self.checkpoint: str = str(checkpoint)
        self.model_type: str = model_type
        self.family: Family = family
        self.config: PreTrainedConfig = config
        self.model: PreTrainedModel = model
        # In half precision transformers keep a part in float32 (BLIP-2's Q-Former).
        self.dtype: torch.dtype = min((values.dtype for values in model.parameters()), key=lambda kind: kind.itemsize)
        self.device: torch.device = model.device
        self.digest: str = connector_digest(family, model, receives)
        self.connectors: list[str] = [family.connector, *family.further(config, receives)]
        self.features: int = family.pre_dim(config) * len(self.connectors)
        self.shape: Shape | None = self._shape(grid) if grid else None
        tried = self.shape or example
        with torch.inference_mode():
            self.features_out: int = self.post(torch.zeros(1, tried.patches, self.features), tried).shape[2]
        self.pre_shape = (self.shape.patches, self.features) if self.shape else None
        self.post_shape = (self.shape.tokens, self.features_out) if self.shape else None

    @torch.inference_mode()
    def __call__(self, pre: torch.Tensor | np.ndarray, shape: Shape | None = None) -> np.ndarray:
        shape = shape or self.shape
        if shape is None:
            raise LossmapError(f"{self.checkpoint}: its images differ in layout. Give that of these.")
        if pre.ndim != 3 or tuple(pre.shape[1:]) != (shape.patches, self.features):
            raise LossmapError(
                f"{self.checkpoint}: its connector takes {shape.patches} patches of {self.features} features"
                f" per image, these embeddings have the shape {tuple(pre.shape)}. They were made by another model, or"
                " with another image_size, view or receives: extract them again."
            )
        batches = [self.post(torch.as_tensor(pre[start : start + BATCH]), shape) for start in range(0, len(pre), BATCH)]
        none = np.empty((0, shape.tokens, self.features_out), dtype=np.float32)
        return np.concatenate([none, *(post.float().cpu().numpy() for post in batches)])

    def post(self, pre: torch.Tensor, shape: Shape | None = None) -> torch.Tensor:
        """The same of one batch, as a tensor of this dtype on this device. Gradients flow where they are on."""
        shape = shape or cast(Shape, self.shape)
        pre = pre.to(self.device, self.dtype)
        views = pre.split([view.extra + view.rows * view.cols for view in shape.views], dim=1)
        tokens = torch.cat([self._tokens(view, grid) for view, grid in zip(views, shape.views, strict=True)], dim=1)
        rows = torch.from_numpy(_rows_of(shape, self.family.latents is not None, self.family.before)).to(self.device)
        if torch.equal(rows, torch.arange(tokens.shape[1], device=self.device)):
            return tokens
        if (rows < 0).any():
            newline = cast(torch.Tensor, self.model.image_newline).expand(len(pre), 1, -1)
            tokens = torch.cat([tokens, newline], dim=1)  # which -1 is
        return tokens[:, rows]

    @property
    def merge(self) -> int:
        """Patches of a token along each side."""
        return self.family.merge(self.config) if self.family.merge else 1

    def _tokens(self, pre: torch.Tensor, view: ViewShape) -> torch.Tensor:
        """What the connector makes of one view, before it is joined with others."""
        made = []
        for name, part in zip(self.connectors, pre.chunk(len(self.connectors), dim=-1), strict=True):
            # Contiguous, for the same sums however pre lay in memory.
            given = self.family.arguments(part.contiguous(), self.config, (view.rows, view.cols))
            post = self.family.apply(self.model, name, given)
            made.append(post.reshape(len(pre), -1, post.shape[-1]))
        return made[0] if len(made) == 1 else torch.cat(made, dim=-1)

    def _shape(self, grid: tuple[int, int]) -> Shape:
        """Of images that are all seen in one view of this grid."""
        patches = self.family.extra + grid[0] * grid[1]
        if self.family.latents:
            return one_view(grid, None, patches, self.family.latents(self.config))
        post_grid = grid[0] // self.merge, grid[1] // self.merge
        before = self.family.before
        tokens = before + post_grid[0] * post_grid[1] + self.family.newline
        return one_view(grid, post_grid, patches, tokens, before)


@lru_cache(maxsize=1024)
def _rows_of(shape: Shape, queries: bool, before: int) -> np.ndarray:
    """(tokens,): which token each row of post is, counted over those of all views in their order; -1 for a line end.

    queries: whether tokens have no place: then each view gives a run of them. before: tokens that each view gives
    before those that have a place; then a span without a place is of these.
    """
    if queries:
        return np.arange(shape.tokens)
    first, rasters, start = [], [], 0
    merge = next(span.merge for span in shape.spans if span.cols)
    for view in shape.views:
        rows, cols = view.rows // merge, view.cols // merge
        first.append(start + np.arange(before))
        rasters.append(start + before + np.arange(rows * cols).reshape(rows, cols))
        start += before + rows * cols
    found = []
    for span in shape.spans:
        if not span.cols:
            found.append(first[span.first] if before else np.full(span.rows, -1))
            continue
        found.append(np.pad(joined(span, rasters), ((0, 0), (0, span.newline)), constant_values=-1).ravel())
    return np.concatenate(found)


def load_connector(
    checkpoint: str | Path,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    image_size: int | None = None,
    view: View = SQUARE,
    receives: str = ALL,
) -> Connector:
    """Load a model's connector. Neither its vision tower nor its language model is built or read.

    Parameters: as `load_vision_side`, of which the embeddings came.
    Raises: LossmapError if the checkpoint can't be had, is of no known family, lacks weights of the connector, or
        receives means nothing to its family.
    """
    precision = precision_of(dtype)
    folder = resolve_checkpoint(checkpoint, revision)
    preprocessor = load_preprocessor(folder, image_size=image_size, view=view)
    if isinstance(preprocessor, Preprocessor):
        grid, example = preprocessor.grid, None
    else:
        grid, example = None, preprocessor.layout(96, 64).shape  # one that the model takes
    model_type, family = read_family(folder)
    if problem := receives_problem(str(checkpoint), family, receives):
        raise LossmapError(problem)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    whole = cast("type[PreTrainedModel]", MODEL_MAPPING[type(config)])
    kept = [family.connector, *family.after, *([family.stacked] if family.stacked and receives == ALL else [])]
    model_class = reduced(whole, lambda model: _keep_only(model, kept))
    wanted = partial(is_connector_key, receives=receives)
    model = load_base_model(checkpoint, folder, config, model_class, wanted, precision, adapter_of(checkpoint))
    return Connector(checkpoint, model_type, family, config, placed(model, device), grid, example, receives)


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
    how |= {"view": key.get("view", SQUARE), "receives": received(key, FAMILIES.get(str(key.get("model_type"))))}
    connector = load_connector(**how, dtype=key["compute_dtype"], device=device)
    if connector.digest != key["connector_digest"]:
        raise LossmapError(
            f"{connector.checkpoint}: the weights of its connector are not those that made the embeddings"
            f" ({connector.digest[:12]}, not {key['connector_digest'][:12]}). Put the checkpoint of then back,"
            " or extract the embeddings again."
        )
    return connector


def _keep_only(module: torch.nn.Module, paths: list[str]) -> None:
    """Drop every module but those at these paths."""
    for name, child in list(module.named_children()):
        if name in paths:
            continue
        within = [path.removeprefix(f"{name}.") for path in paths if path.startswith(f"{name}.")]
        if within:
            _keep_only(child, within)
        else:
            setattr(module, name, None)
