"""Finding the connector of a model by experiment: which module makes what the language model is given of an image, and
which of its input's rows a place of the image moves.

The model is built from its configuration with random weights and without its language model: names, shapes and orders
don't depend on weights, and nothing of a checkpoint but its JSON files is read.
"""

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, PreTrainedConfig

from lossmap.errors import LossmapError
from lossmap.vlm.families import FAMILIES
from lossmap.vlm.loading import TEXT_PARTS, drop, quiet, without_text
from lossmap.vlm.pixel_check import outputs

ONE_VIEW = {"crop_to_patches": False, "do_image_splitting": False, "do_pan_and_scan": False}
TRIED = 7  # places of the image
USUAL = 224  # side of the image in pixels, where a model takes any


@dataclass(frozen=True)
class FoundConnector:
    """What an experiment shows of one model.

    module: the connector's name in the base model. inputs: what `get_image_features` took. shape: of the tensor that
    enters the connector, for one square image; rows and features: of it as a list of vectors. tokens and features_out:
    of what the language model is given. places: of the image, numbers in a raster of rows; moved: the row that each of
    them moves most; moved_tokens: the token. All three are empty where rows don't form a square, as of several views.
    keys: how names of the vision side's tensors begin. config: the model's.
    """

    module: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    rows: int
    features: int
    tokens: int
    features_out: int
    places: tuple[int, ...]
    moved: tuple[int, ...]
    moved_tokens: tuple[int, ...]
    keys: tuple[str, ...]
    config: PreTrainedConfig = field(compare=False)

    @property
    def grid(self) -> int:
        """Rows along each side of the image."""
        return round(self.rows**0.5)

    @property
    def order(self) -> str | None:
        """ "raster", "merge blocks" (of 2 x 2) or "another order" of the rows; None where it was not tried."""
        if not self.places:
            return None
        if self.moved == self.places:
            return "raster"
        if self.grid % 2 == 0:
            half = self.grid // 2
            blocks = np.arange(self.rows).reshape(half, 2, half, 2).transpose(0, 2, 1, 3).ravel()
            if tuple(blocks[list(self.moved)]) == self.places:
                return "merge blocks"
        return "another order"

    @property
    def merge(self) -> int | None:
        """m where each token stands for m x m rows: most of the places tried move the token there most. None where
        tokens have no place, as of queries, or where that was not tried."""
        m = round((self.rows / self.tokens) ** 0.5) if self.tokens else 0
        if not self.places or not m or m**2 * self.tokens != self.rows:
            return None
        row, column = np.divmod(self.places, self.grid)
        wanted = row // m * (self.grid // m) + column // m
        return m if np.mean(wanted == np.array(self.moved_tokens)) > 0.5 else None


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
    places, moved, moved_tokens = _moved(folder, model, processor, module, canvas, rows, post)
    return FoundConnector(
        module=module,
        inputs=tuple(inputs),
        shape=tuple(seen.shape),
        rows=len(rows),
        features=rows.shape[1],
        tokens=len(post),
        features_out=post.shape[1],
        places=places,
        moved=moved,
        moved_tokens=moved_tokens,
        keys=tuple(f"{name}." for name, part in model.named_children() if any(True for _ in part.parameters())),
        config=model.config,
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
    known = FAMILIES.get(config.model_type)
    if not (known.fits(model) if known else hasattr(model, "get_image_features")):
        raise LossmapError(
            f"{folder}: {type(model).__name__} has no get_image_features, so that it can't be tried from outside. See"
            " how its forward makes tokens of an image, and give the family's entry its own `run`."
        )
    drop(model, TEXT_PARTS)
    return model, processor


def _side(config: Any) -> int:
    """Of a square image that the model takes as it is."""
    side = getattr(getattr(config, "vision_config", None), "image_size", None) or USUAL
    return int(side[0] if isinstance(side, list | tuple) else side)


def _inputs(folder: Path, model: Any, processor: Any, canvas: np.ndarray) -> dict[str, Tensor]:
    asked = {name: value for name, value in ONE_VIEW.items() if hasattr(processor, name)}
    try:
        made = outputs(processor(images=[[Image.fromarray(canvas)]], return_tensors="pt", **asked))
    except Exception as error:  # whatever its class raises
        raise LossmapError(
            f"{folder}: its image processor makes nothing of an image of {len(canvas)} x {len(canvas)} pixels"
            f" ({type(error).__name__}: {' '.join(str(error).split())[:300]})."
        ) from None
    known = FAMILIES.get(model.config.model_type)
    taken = known.inputs if known else inspect.signature(model.get_image_features).parameters
    inputs = {name: values for name, values in made.items() if name in taken}
    if not inputs:
        raise LossmapError(f"{folder}: its image processor gives {', '.join(made)}, of which its model takes nothing.")
    return inputs


def _connector(folder: Path, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[str, Tensor, Tensor]:
    """Name of the outermost module behind the pixels that makes what leaves the vision side, what entered it, and what
    left: (tokens, features_out)."""
    names = [name for name, _ in model.named_modules() if name and not any(map(str.isdigit, name.split(".")))]
    calls, post = _called(model, names, inputs)
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


def _called(
    model: nn.Module, names: list[str], inputs: dict[str, Tensor]
) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """What entered and left each of these modules, by its name, and what the language model is given: (tokens,
    features_out)."""
    calls: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = [model.get_submodule(name).register_forward_hook(_kept(calls, name), with_kwargs=True) for name in names]
    with torch.inference_mode():
        post = _rows(_sent(model, inputs).pooler_output)
    for hook in hooks:
        hook.remove()
    return calls, post


def _sent(model: Any, inputs: dict[str, Tensor]) -> Any:
    """An image through the vision side: in its own way where the registry knows one."""
    known = FAMILIES.get(model.config.model_type)
    return known.run(model, known, inputs) if known else model.get_image_features(**inputs)


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


def _moved(
    folder: Path, model: Any, processor: Any, module: str, canvas: np.ndarray, rows: Tensor, post: Tensor
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Places of the image, whitened one by one, and the row and the token that each moves most."""
    grid = round(len(rows) ** 0.5)
    if grid**2 != len(rows):
        return (), (), ()
    step = len(canvas) / grid
    places = np.random.default_rng(1).permutation(grid**2)[:TRIED].tolist()
    moved, tokens = [], []
    for place in places:
        row, column = divmod(place, grid)
        changed = canvas.copy()
        changed[round(row * step) : round((row + 1) * step), round(column * step) : round((column + 1) * step)] = 255
        calls, after = _called(model, [module], _inputs(folder, model, processor, changed))
        moved.append(int((_rows(calls[module][0]) - rows).norm(dim=1).argmax()))
        tokens.append(int((after - post).norm(dim=1).argmax()))
    return tuple(places), tuple(moved), tuple(tokens)
