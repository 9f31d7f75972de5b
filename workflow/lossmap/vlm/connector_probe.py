"""Finding the connector of a model by experiment: which module makes what the language model is given of an image, and
which of its input's rows a place of the image moves.

The model is built from its configuration with random weights and without its language model: names, shapes and orders
don't depend on weights, and nothing of a checkpoint but its JSON files is read.
"""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from lossmap.errors import LossmapError
from lossmap.vlm.families import FAMILIES
from lossmap.vlm.loading import TEXT_PARTS, quiet, without_text

ONE_VIEW = {"crop_to_patches": False, "do_image_splitting": False, "do_pan_and_scan": False}
TRIED = 7  # places of the image
USUAL = 224  # side of the image in pixels, where a model takes any


@dataclass(frozen=True)
class FoundConnector:
    """What an experiment shows of one model.

    module: the connector's name in the base model. inputs: what `get_image_features` took. rows and features: of what
    enters the connector, for one square view. tokens and features_out: of what the language model is given.
    order: "raster", "merge blocks" or "another order" of the rows; None where rows don't form a square, as of several
        views. placed: whether what is shown at a place moves the token there most,
        in most of the places tried.
    keys: how names of the vision side's tensors begin.
    """

    model_type: str
    module: str
    inputs: tuple[str, ...]
    rows: int
    features: int
    tokens: int
    features_out: int
    order: str | None
    placed: bool
    keys: tuple[str, ...]

    @property
    def merge(self) -> int | None:
        """m where each token stands for m x m rows; None where tokens have no place, as of queries."""
        return _merge(self.rows, self.tokens) if self.placed else None

    def lines(self) -> list[str]:
        """What to print."""
        tokens = (
            f"one for each {self.merge} x {self.merge} rows"
            if self.merge
            else "whose places were not found (queries, or fields that overlap)"
        )
        order = {"raster": "in raster order", "merge blocks": "in blocks of 2 x 2", "another order": "in another order"}
        known = FAMILIES.get(self.model_type)
        found = [
            f"model_type {self.model_type}: the connector looks like {self.module}",
            f"  before it: {self.rows} rows of {self.features} features,"
            f" {order.get(self.order or '', 'of several views: their order and places of tokens were not tried')}",
            f"  after it: {self.tokens} tokens of {self.features_out} features, {tokens}",
            f"  get_image_features takes {', '.join(self.inputs)}",
        ]
        if known is None:
            return [*found, "Lossmap doesn't know this family. An entry of FAMILIES to try:", *self.entry()]
        if self.module == known.connector:
            return [*found, "As the registry says."]
        if self.module in known.after:
            return [*found, f"As the registry says, which goes back to {known.connector} before it."]
        return [*found, f"The registry taps {known.connector} instead: see docs/families.md, where it says why."]

    def entry(self) -> list[str]:
        """A registry entry to begin with, and what it leaves open."""
        merge = f"lambda c: {self.merge}" if self.merge else "None"
        raster = ", _merge_blocks, _squares_listed" if self.order == "merge blocks" else ""
        queries = "" if self.merge else f", latents=lambda c: {self.tokens}"
        lines = [
            f'    "{self.model_type}": Family(',
            f'        "{self.module}", {self.inputs}, {merge}, "whole", {self.keys}{raster}{queries}',
            "    ),",
        ]
        if self.order == "another order":
            lines.append("  to_raster is missing: the rows are neither in raster order nor in blocks.")
        return [*lines, "  Write merge by the configuration's own name, try it, and add its tests: docs/extending.md."]


def probe_connector(folder: str | Path) -> FoundConnector:
    """Find the connector of the model that a checkpoint's folder describes.

    Parameters: folder, with config.json and the image processor's settings.
    Raises: LossmapError if transformers can't build the model or its inputs, it has no `get_image_features`, or no
        module's output is what that gives.
    """
    folder = Path(folder)
    model, processor = _built(folder)
    side = _side(model.config)
    canvas = np.random.default_rng(0).integers(90, 150, (side, side, 3), dtype=np.uint8)
    inputs = _inputs(folder, model, processor, canvas)
    module, seen, post = _connector(folder, model, inputs)
    rows = _rows(seen)
    order, placed = _order(folder, model, processor, module, canvas, rows, post)
    return FoundConnector(
        model_type=model.config.model_type,
        module=module,
        inputs=tuple(inputs),
        rows=len(rows),
        features=rows.shape[1],
        tokens=len(post),
        features_out=post.shape[1],
        order=order,
        placed=placed,
        keys=_keys(model),
    )


def _built(folder: Path) -> tuple[Any, Any]:
    if not (folder / "config.json").is_file():
        raise LossmapError(f"{folder}: has no config.json. Give the folder of a checkpoint.")
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = AutoConfig.from_pretrained(folder, **local)
            processor = AutoImageProcessor.from_pretrained(folder, backend="pil", config=config, **local)
            model = AutoModel.from_config(without_text(config)).eval()
            for values in model.parameters():
                if values.ndim > 1 and values.numel() > 1 and values.std() == 0:  # as queries all alike: all would move
                    nn.init.normal_(values, std=0.02)
    except Exception as error:  # transformers raises whatever the files lead it to
        raise LossmapError(
            f"{folder}: transformers can't build its model or its image processor without torchvision and without code"
            f" of the checkpoint's own ({type(error).__name__}: {' '.join(str(error).split())[:300]})."
        ) from None
    if not hasattr(model, "get_image_features"):
        raise LossmapError(
            f"{folder}: {type(model).__name__} has no get_image_features, so that it can't be tried from outside. See"
            " how its forward makes tokens of an image, and give the family's entry its own `run`."
        )
    for name in TEXT_PARTS:
        if hasattr(model, name):
            setattr(model, name, None)
    return model, processor


def _side(config: Any) -> int:
    """Of a square image that the model takes as it is."""
    side = getattr(getattr(config, "vision_config", None), "image_size", None) or USUAL
    return int(side[0] if isinstance(side, list | tuple) else side)


def _inputs(folder: Path, model: Any, processor: Any, canvas: np.ndarray) -> dict[str, Tensor]:
    asked = {name: value for name, value in ONE_VIEW.items() if hasattr(processor, name)}
    made = processor(images=[[Image.fromarray(canvas)]], return_tensors="pt", **asked)
    taken = inspect.signature(model.get_image_features).parameters
    inputs = {name: values for name, values in made.items() if name in taken}
    if not inputs:
        raise LossmapError(f"{folder}: its image processor gives {', '.join(made)}, of which its model takes nothing.")
    return inputs


def _connector(folder: Path, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[str, Tensor, Tensor]:
    """Name of the outermost module behind the pixels that makes what leaves the vision side, what entered it, and what
    left: (tokens, features_out)."""
    calls: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = [
        module.register_forward_hook(_kept(calls, name), with_kwargs=True)
        for name, module in model.named_modules()
        if name and not any(part.isdigit() for part in name.split("."))
    ]
    with torch.inference_mode():
        post = _rows(cast(Any, model).get_image_features(**inputs).pooler_output)
    for hook in hooks:
        hook.remove()
    pixels = {values.shape for values in inputs.values()}
    found = [
        name
        for name, (given, made) in calls.items()
        if given.shape not in pixels and made.shape[-1] == post.shape[1] and _makes(made, post)
    ]
    if not found:
        raise LossmapError(
            f"{folder}: no module of {type(model).__name__} puts out what the language model is given: it is computed"
            f" between modules. These were called: {', '.join(calls)}."
        )
    name = min(found, key=lambda name: (name.count("."), len(name)))
    return name, calls[name][0], post


def _kept(calls: dict[str, tuple[Tensor, Tensor]], name: str):
    def keep(module, args, kwargs, out):
        given = next((value for value in (*args, *kwargs.values()) if torch.is_tensor(value)), None)
        made = out if torch.is_tensor(out) else next((part for part in _parts(out) if torch.is_tensor(part)), None)
        if given is not None and made is not None and given.is_floating_point() and made.ndim > 1:
            calls[name] = given, made

    return keep


def _parts(out: Any) -> list:
    return list(out.values()) if hasattr(out, "values") else list(out) if isinstance(out, list | tuple) else []


def _makes(made: Tensor, post: Tensor) -> bool:
    """Whether most tokens are among the rows that a module puts out."""
    rows = made.reshape(-1, made.shape[-1])
    nearest = torch.cdist(post.float(), rows.float()).min(1).values
    return bool((nearest <= 1e-4 * post.float().norm(dim=1)).float().mean() >= 0.5)


def _rows(values: Any) -> Tensor:
    """(rows, features) of one tensor or several; of maps, (n, features, rows, columns), places in raster order."""
    if not torch.is_tensor(values):
        return torch.cat([_rows(part) for part in values])
    if values.ndim == 4 and values.shape[1] > values.shape[2] == values.shape[3]:
        values = values.flatten(2).transpose(1, 2)
    return values.reshape(-1, values.shape[-1])


def _order(
    folder: Path, model: Any, processor: Any, module: str, canvas: np.ndarray, rows: Tensor, post: Tensor
) -> tuple[str | None, bool]:
    """In which order the rows lie, and whether tokens have places: places of the image are whitened one by one, and
    each moves one row, and perhaps one token, most."""
    grid, merge = round(len(rows) ** 0.5), _merge(len(rows), len(post))
    if grid**2 != len(rows):
        return None, False
    step = len(canvas) / grid
    places = np.random.default_rng(1).permutation(grid**2)[:TRIED]
    moved, tokens, wanted = [], [], []
    for place in places:
        row, column = divmod(int(place), grid)
        changed = canvas.copy()
        changed[round(row * step) : round((row + 1) * step), round(column * step) : round((column + 1) * step)] = 255
        _, seen, after = _connector(folder, model, _inputs(folder, model, processor, changed))
        moved.append(int((_rows(seen) - rows).norm(dim=1).argmax()))
        tokens.append(int((after - post).norm(dim=1).argmax()))
        wanted.append(row // merge * (grid // merge) + column // merge if merge else -1)
    placed = bool(merge and np.mean(np.equal(tokens, wanted)) > 0.5)
    if moved == places.tolist():
        return "raster", placed
    if grid % 2 == 0:
        blocks = np.arange(grid**2).reshape(grid // 2, 2, grid // 2, 2).transpose(0, 2, 1, 3).ravel()
        if blocks[moved].tolist() == places.tolist():
            return "merge blocks", placed
    return "another order", placed


def _merge(rows: int, tokens: int) -> int | None:
    """m where there are m x m rows for each token."""
    side = round((rows / tokens) ** 0.5) if tokens else 0
    return side if side and side**2 * tokens == rows else None


def _keys(model: nn.Module) -> tuple[str, ...]:
    return tuple(f"{name}." for name, part in model.named_children() if any(True for _ in part.parameters()))
