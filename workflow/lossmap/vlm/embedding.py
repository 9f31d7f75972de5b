"""From images to embeddings before and after the connector, many at a time."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
import transformers
import xarray as xr
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lossmap.data.images import Picture, as_image, load_image
from lossmap.errors import LossmapError
from lossmap.store import in_memory, write_index, write_part
from lossmap.vlm.loading import VisionSide
from lossmap.vlm.preprocessing import Preprocessor
from lossmap.vlm.stored import open_embeddings, with_patch_boxes
from lossmap.vlm.tiled import TiledPreprocessor

T = TypeVar("T")
Prepared = tuple[list[tuple[list[int], dict[str, torch.Tensor]]], list[tuple[int, int]]]
Batch = Prepared | LossmapError  # by images that are alike, their positions and pixels; and the sizes of all
USUAL = 576  # patches of an image of 336 x 336 pixels


@dataclass(frozen=True)
class Batches(Dataset[Batch]):
    """Batches of prepared images, in order. A fault is returned, not raised, so that its message stays as it is.

    images: paths, PIL images or arrays (see `as_image`). sha256: of each file where a manifest has it, or None. names:
    what messages call those that have no path.
    """

    preprocessor: Preprocessor | TiledPreprocessor
    images: Sequence[Picture]
    batch_size: int
    sha256: Sequence[str] | None = None
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, i: int) -> Batch:
        rows = range(i * self.batch_size, min((i + 1) * self.batch_size, len(self.images)))
        try:
            images = [self._load(row) for row in rows]
            sizes = [image.size for image in images]
            self._check(rows, sizes)
            groups = [group for alike in self.preprocessor.alike(sizes) for group in self._passes(alike, sizes)]
            return [(group, self.preprocessor.prepare([images[i] for i in group])) for group in groups], sizes
        except LossmapError as error:
            return error

    def _check(self, rows: range, sizes: list[tuple[int, int]]) -> None:
        """Raise LossmapError naming the first image of a shape that the model's views don't take."""
        if isinstance(self.preprocessor, TiledPreprocessor):
            for row, size in zip(rows, sizes, strict=True):
                try:
                    self.preprocessor.layout(*size)
                except LossmapError as error:
                    raise LossmapError(f"{self._name(row)}: {error}") from None

    def _name(self, row: int) -> str:
        given = self.images[row]
        if isinstance(given, str | os.PathLike):
            return os.fspath(given)
        return self.names[row] if self.names is not None else f"image {row}"

    def _passes(self, alike: list[int], sizes: list[tuple[int, int]]) -> list[list[int]]:
        """Images that are alike, as many at once as have the patches of a batch of usual ones."""
        if isinstance(self.preprocessor, Preprocessor):
            return [alike]
        patches = self.preprocessor.layout(*sizes[alike[0]]).shape.patches
        count = images_at_once(self.batch_size, patches)
        return [alike[start : start + count] for start in range(0, len(alike), count)]

    def _load(self, row: int) -> Image.Image:
        if self.sha256 is not None:
            return load_image(cast("str | Path", self.images[row]), self.sha256[row])
        return as_image(self.images[row], self._name(row))


def images_at_once(batch_size: int, patches: int) -> int:
    """Images in views that go through a model at once: as many as have the patches of a batch of usual ones."""
    return max(1, batch_size * USUAL // patches)


def embed(
    model: VisionSide,
    images: Picture | Iterable[Picture],
    *,
    image_ids: Iterable[object] | None = None,
    batch_size: int = 32,
    dtype: Literal["float32", "float16"] = "float32",
    store: str | Path | None = None,
    threads: int | None = None,
) -> xr.Dataset:
    """Embed images before and after a model's connector.

    Parameters: model, from `open_model`. images: paths of files, PIL images, arrays (height, width, 3) uint8, or some
        of each. image_ids: their names, by default paths, and numbers of those that have none. batch_size: images in
        one forward pass. dtype: of pre and post, "float32" or "float16". store: an index to write,
        <folder>/<name>.json, for more images than memory holds, or to be read again by `open_embeddings` and by the
        workflow; its parts go to <folder>/<name>/. threads: on a CPU, by default PyTorch's number; with a GPU,
        processes that decode.
    Returns: a Dataset, in memory or of the store: pre (image, patch, feature), what enters the connector, patches in
        raster order; post (image, token, feature_out), what the language model receives; pre_mean and post_mean, over
        patches and over tokens, in float32; patch_box (image, patch, edge): left, top, right, bottom of each patch in
        pixels of the upright original image, and box (image, edge) of all of them; size (image, side): width and
        height of the original. Attributes: pre_grid and post_grid (rows, columns; None where tokens have no place),
        key: what they depend on.
    Raises: LossmapError if there are no images, an id occurs twice, an image can't be read (it is named), or a value
        is not finite.
    """
    images = _listed(images)
    names = [str(name) for name in image_ids] if image_ids is not None else _names(images)
    if dtype not in ("float32", "float16"):
        raise LossmapError(f"dtype is {dtype!r}. Choose float32 or float16.")
    if not images or len(names) != len(images):
        raise LossmapError(f"{len(images)} images and {len(names)} image_ids are given. Give one image or more.")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise LossmapError(f"image_ids: {twice} occurs twice. Give each image a name of its own.")
    batches = Batches(model.preprocessor, images, batch_size, names=[f"image {name}" for name in names])
    made: dict[str, Any] = {
        "checkpoint": model.checkpoint,
        "batch_size": batch_size,
        "dtype": dtype,
        "store_post": True,
    }
    made |= {"image_size": _side(model)}
    made |= {"view": model.view} if isinstance(model.preprocessor, TiledPreprocessor) else {}
    made |= {"compute_dtype": str(model.dtype).removeprefix("torch.")}
    about = describe(model, made)
    embedded = embed_images(model, batches, getattr(torch, dtype), threads or torch.get_num_threads())
    if store is None:
        return with_patch_boxes(in_memory(embedded, names, about))
    index = Path(store)
    if index.suffix != ".json":
        raise LossmapError(f"{store}: is no name of an index. Give <folder>/<name>.json.")
    part = index.with_suffix("") / f"part-{0:06d}-{len(images):06d}.zarr"
    part.parent.mkdir(parents=True, exist_ok=True)
    software = {"torch": torch.__version__, "transformers": transformers.__version__, "device": model.device.type}
    write_part(embedded, part, names, dtype, about, provenance=software)
    write_index([part], index)
    return open_embeddings(index)


def describe(model: VisionSide, key: dict) -> dict:
    """What a store says of how its embeddings were made, JSON. key: what they depend on, beyond the model itself."""
    layouts = model.family.placeless  # say where rows lie
    return {
        "pre_grid": None if layouts else model.pre_grid and list(model.pre_grid),
        "post_grid": None if layouts else model.post_grid and list(model.post_grid),
        "preprocessing": json.loads(json.dumps(model.preprocessor.told())),
        "key": {**model.provenance, **key},
    }


def _side(model: VisionSide) -> int | None:
    """Of the square input of a model that takes any."""
    square = isinstance(model.preprocessor, Preprocessor) and model.family.view in ("any", "longest")
    return cast(Preprocessor, model.preprocessor).input_size[0] if square else None


def _listed(images: Picture | Iterable[Picture]) -> list[Picture]:
    """One image, or several, as several."""
    if isinstance(images, np.ndarray):
        one = images.ndim == 2 or (images.ndim == 3 and images.shape[2] == 3)
        return [images] if one else list(images)
    return [images] if isinstance(images, str | os.PathLike | Image.Image) else list(images)


def _names(images: Sequence[Picture]) -> list[str]:
    return [os.fspath(image) if isinstance(image, str | os.PathLike) else str(i) for i, image in enumerate(images)]


def embed_images(vision: VisionSide, batches: Batches, dtype: torch.dtype, threads: int) -> Iterator[dict[str, Any]]:
    """Embed images batch by batch.

    On the CPU each thread takes whole batches, from the files to the embeddings, on one core: nothing waits for
    anything, and the values do not depend on the number of threads. For a GPU, worker processes decode and resize ahead
    of it.

    Parameters: vision, the model's vision side; batches, the images; dtype, what pre and post are rounded
    to; threads, at least 1, how many threads, or for a GPU worker processes.
    Yields: per batch pre (b, patches, features), post (b, tokens, features_out), their means over patches and tokens
    taken in float32 before rounding, box (b, 4): left, top, right, bottom of the model's input in pixels of the
    original image, size (b, 2): width and height of the original after EXIF orientation. Of images in views, pre and
    post are (rows of all images, features), and layouts, a Layout of each, stands in place of box and size.
    Raises: LossmapError naming the image that can't be read or has changed since the manifest was made.
    """
    if vision.device.type == "cpu":
        yield from _in_order(lambda i: _embed(vision, batches, batches[i], dtype), len(batches), threads)
        return
    loader = DataLoader(batches, batch_size=None, num_workers=threads, prefetch_factor=4, pin_memory=True)
    for batch in loader:
        yield _embed(vision, batches, batch, dtype)


def _embed(vision: VisionSide, batches: Batches, batch: Batch, dtype: torch.dtype) -> dict[str, Any]:
    if isinstance(batch, LossmapError):
        raise batch
    (groups, sizes), made = batch, batches.preprocessor
    if isinstance(made, TiledPreprocessor) or vision.family.placeless:
        return _views(vision, made, groups, sizes, dtype)
    ((_, pixels),) = groups
    pre, post = vision.embed(made.normalise(pixels, vision.device, vision.dtype))
    boxes = [made.geometry(width, height).box for width, height in sizes]
    return _arrays(pre, post, dtype) | {"box": np.array(boxes, dtype="float32"), "size": np.array(sizes, dtype="int32")}


def _views(
    vision: VisionSide,
    made: Preprocessor | TiledPreprocessor,
    groups: list,
    sizes: list[tuple[int, int]],
    dtype: torch.dtype,
) -> dict[str, Any]:
    """The same of images in views, one after another: pre (patches of all, features), post, and their layouts."""
    layouts = [vision.layout(width, height) for width, height in sizes]
    found: list[dict[str, np.ndarray]] = [{} for _ in sizes]
    for positions, pixels in groups:
        inputs = made.normalise(pixels, vision.device, vision.dtype)
        arrays = _arrays(*vision.embed(inputs, layouts[positions[0]].shape), dtype)
        for row, i in enumerate(positions):
            found[i] = {name: values[row] for name, values in arrays.items()}
    flat = {name: np.concatenate([one[name] for one in found]) for name in ("pre", "post")}
    means = {name: np.stack([one[name] for one in found]) for name in ("pre_mean", "post_mean")}
    return flat | means | {"layouts": layouts}


def _arrays(pre: torch.Tensor, post: torch.Tensor, dtype: torch.dtype) -> dict[str, np.ndarray]:
    arrays = {
        "pre": pre.to(dtype),
        "post": post.to(dtype),
        "pre_mean": pre.mean(1, dtype=torch.float32),
        "post_mean": post.mean(1, dtype=torch.float32),
    }
    return {name: values.cpu().numpy() for name, values in arrays.items()}


def _in_order(work: Callable[[int], T], count: int, threads: int) -> Iterator[T]:
    """work(0), work(1), ..., work(count - 1), computed by threads of one core each, at most two a thread in memory."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting: deque[Future[T]] = deque()
        for i in range(count):
            waiting.append(pool.submit(work, i))
            if len(waiting) == 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # a part of the setting is shared by all threads
