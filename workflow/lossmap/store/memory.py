"""Embeddings in memory: the same Dataset as of a store."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, cast

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from lossmap.errors import LossmapError
from lossmap.store.boxes import with_ragged_boxes
from lossmap.store.format import DIMENSIONS
from lossmap.store.images import LAYOUT_DIMENSIONS, RAGGED_DIMENSIONS, is_ragged, layout_arrays
from lossmap.store.layouts import Layout, Shape
from lossmap.store.ragged import layouts_of
from lossmap.store.writer import check_finite, checked_rows

HERE = "embeddings in memory"  # what messages call them
KEPT = ("pre", "post")
Embeddings: TypeAlias = xr.Dataset | tuple[ArrayLike, ArrayLike]  # the pair: pre and post, or lists of arrays


def in_memory(embedded: Iterable[Mapping[str, Any]], image_ids: list[str], attributes: dict) -> xr.Dataset:
    """What `write_part` would write of these batches, as `open_store` would open it.

    Parameters: embedded, batches of every array of `DIMENSIONS`, or with layouts, those for `RaggedPartWriter.append`;
        pre and post in the dtype that they are kept in; image_ids, in order; attributes, how they were made, with
        pre_grid and post_grid.
    Raises: StoreError where a value is not finite, naming the image.
    """
    batches, first = [], 0
    layouts: list[Layout] = []
    for batch in embedded:
        if "layouts" in batch:
            batches.append(dict(checked_rows(HERE, batch, image_ids[first:], {n: batch[n].dtype for n in KEPT})))
            layouts += batch["layouts"]
            first = len(layouts)
            continue
        for name, values in batch.items():
            check_finite(HERE, name, values, batch.get(f"{name}_mean"), image_ids[first:])
        batches.append(dict(batch))
        first += len(batch["pre"])
    if layouts:
        return _ragged(
            {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]},
            layouts,
            image_ids,
            attributes,
        )
    arrays = {name: np.concatenate([batch[name] for batch in batches]) for name in DIMENSIONS}
    post = {"shape": list(arrays["post"].shape[1:]), "dtype": str(arrays["post"].dtype), "stored": True}
    variables = {name: (DIMENSIONS[name], values) for name, values in arrays.items()}
    return xr.Dataset(variables, _ids(image_ids), attributes | {"post": post})


def from_arrays(
    pre: ArrayLike | Sequence[ArrayLike],
    post: ArrayLike | Sequence[ArrayLike],
    *,
    pre_grid: Sequence[int] | None = None,
    post_grid: Sequence[int] | None = None,
    image_ids: Iterable[object] | None = None,
    layouts: Sequence[Layout] | None = None,
) -> xr.Dataset:
    """Embeddings of any tool, as what `embed` returns, for everything that takes embeddings.

    Parameters: pre and post, real arrays or tensors: (n, d), one vector for each item, or (n, patches, d) and
        (n, tokens, d2); item i is the same in both. pre_grid (rows, columns) of the patches, in raster order, and
        post_grid of the tokens, where they have a place; by default one row of patches, and the same of as many tokens.
        image_ids: names, by default numbers. layouts: of images that differ in it, a `lossmap.store.Layout` for each:
        pre and post are then lists of arrays, one for each image, (patches, d) and (tokens, d2). Lists need none where
        each image has as many tokens as patches, one of each, or both are given as grids, (rows, columns, d), a token
        for a square of patches.
    Returns: a Dataset with pre, post and their means, as of `embed`, without boxes and sizes; with layouts, a ragged
        one with both.
    Raises: LossmapError if shapes don't fit each other or a grid, or a value is not finite (the item is named).
    """
    if layouts is not None:
        if pre_grid is not None or post_grid is not None:
            raise LossmapError("pre_grid, post_grid and layouts are given; layouts say where patches and tokens lie.")
        return _of_lists(list(cast(Any, pre)), list(cast(Any, post)), list(layouts), image_ids)
    if pre_grid is None and post_grid is None and (found := layouts_of(pre, post)) is not None:
        flat: list[Any] = [[_flat(one) for one in cast(Any, side)] for side in (pre, post)]
        return _of_lists(flat[0], flat[1], found, image_ids)
    pre, post = (_three_axes(values, name) for values, name in ((pre, "pre"), (post, "post")))
    ids = [str(name) for name in (range(len(pre)) if image_ids is None else image_ids)]
    if not len(pre) == len(post) == len(ids):
        raise LossmapError(
            f"pre has {len(pre)} items, post {len(post)} and image_ids {len(ids)}; wanted as many in each."
        )
    pre_grid = [1, pre.shape[1]] if pre_grid is None else list(pre_grid)
    if post_grid is None and post.shape[1] == pre.shape[1]:
        post_grid = pre_grid
    for name, grid, values in (("pre", pre_grid, pre), ("post", post_grid, post)):
        if grid is not None and (len(grid) != 2 or grid[0] * grid[1] > values.shape[1]):
            raise LossmapError(f"{name}_grid is {tuple(grid)}, and {name} has {values.shape[1]} vectors an item.")
    if pre_grid[0] * pre_grid[1] != pre.shape[1]:
        raise LossmapError(f"pre_grid is {tuple(pre_grid)}, and pre has {pre.shape[1]} patches an item.")
    variables = {}
    for name, values in (("pre", pre), ("post", post)):
        check_finite("these embeddings", name, values, None, ids)
        variables[name] = DIMENSIONS[name], values
        variables[f"{name}_mean"] = DIMENSIONS[f"{name}_mean"], values.mean(axis=1, dtype=np.float32)
    about: dict[str, Any] = {"pre_grid": pre_grid, "post_grid": post_grid and list(post_grid), "key": {}}
    about["post"] = {"shape": list(post.shape[1:]), "dtype": str(post.dtype), "stored": True}
    return xr.Dataset(variables, _ids(ids), about)


def as_embeddings(embeddings: Embeddings) -> xr.Dataset:
    """A Dataset of embeddings as it is, or of a pair of arrays, pre and post (see `from_arrays`).

    Raises: LossmapError if it is neither.
    """
    if isinstance(embeddings, xr.Dataset):
        if not {"pre", "post", "pre_mean", "post_mean"} <= set(embeddings) or "image_id" not in embeddings.coords:
            raise LossmapError(
                "The Dataset holds no embeddings: wanted what embed, open_embeddings or from_arrays gives."
            )
        if is_ragged(embeddings):
            _check_ragged(embeddings)
        return embeddings
    if isinstance(embeddings, tuple | list) and len(embeddings) == 2:
        return from_arrays(*embeddings)
    raise LossmapError(
        f"Embeddings are given as a {type(embeddings).__name__}; wanted a Dataset of embed or open_embeddings, or a"
        " pair of arrays, (pre, post)."
    )


def _ids(image_ids: list[str]) -> dict:
    return {"image_id": ("image", np.array(image_ids, dtype=str))}


def _ragged(
    arrays: dict[str, NDArray[Any]], layouts: list[Layout], image_ids: list[str], attributes: dict
) -> xr.Dataset:
    """arrays: pre, post and their means."""
    arrays = arrays | layout_arrays(layouts)
    variables = {name: (dimensions, arrays[name]) for name, dimensions in RAGGED_DIMENSIONS.items()}
    post = {"shape": list(arrays["post"].shape[1:]), "dtype": str(arrays["post"].dtype), "stored": True}
    return xr.Dataset(variables, _ids(image_ids), attributes | {"post": post})


def _of_lists(
    pre: list[ArrayLike], post: list[ArrayLike], layouts: list[Layout], image_ids: Iterable[object] | None
) -> xr.Dataset:
    ids = [str(name) for name in (range(len(pre)) if image_ids is None else image_ids)]
    if not len(pre) == len(post) == len(ids) == len(layouts) or not layouts:
        raise LossmapError(
            f"pre has {len(pre)} items, post {len(post)}, image_ids {len(ids)} and layouts {len(layouts)}; wanted as"
            " many in each, and one or more."
        )
    for name, layout in zip(ids, layouts, strict=True):
        if problem := _problem(layout):
            raise LossmapError(f"the layout of item {name}: {problem}.")
    arrays: dict[str, NDArray[Any]] = {}
    for name, items in (("pre", pre), ("post", post)):
        rows = [layout.shape.patches if name == "pre" else layout.shape.tokens for layout in layouts]
        each = [_two_axes(values, f"{name} of item {item}") for values, item in zip(items, ids, strict=True)]
        for values, wanted, item in zip(each, rows, ids, strict=True):
            if values.shape != (wanted, each[0].shape[1]):
                raise LossmapError(
                    f"{name} of item {item} has the shape {values.shape}; its layout and the first item want"
                    f" {(wanted, each[0].shape[1])}."
                )
        arrays[name] = np.concatenate(each)
        check_finite("these embeddings", name, arrays[name], None, ids, np.cumsum([0, *rows]))
        arrays[f"{name}_mean"] = np.stack([values.mean(axis=0, dtype=np.float32) for values in each])
    return with_ragged_boxes(_ragged(arrays, layouts, ids, {"pre_grid": None, "post_grid": None, "key": {}}))


def _problem(layout: Layout) -> str | None:
    """What doesn't fit in a layout."""
    if len(layout.boxes) != len(layout.shape.views):
        return f"{len(layout.boxes)} boxes are given for {len(layout.shape.views)} views"
    return _misfit(layout.shape)


@lru_cache(maxsize=4096)
def _misfit(shape: Shape) -> str | None:
    for number, span in enumerate(shape.spans):
        if span.cols:
            try:
                blocks = Shape(shape.views, (span,)).blocks
            except (IndexError, ValueError):  # no such views, or their patches can't be cut into blocks
                return f"span {number}, {span}, can't be made of the views {shape.views}"
            if len(blocks.tokens) != len(blocks.patches):
                return f"span {number}, {span}, reaches beyond its views"
    return None


def _check_ragged(embeddings: xr.Dataset) -> None:
    if missing := sorted({*LAYOUT_DIMENSIONS} - set(embeddings)):
        raise LossmapError(f"The Dataset holds embeddings of images that differ in layout, without {missing}.")
    if embeddings.sizes["bound"] != embeddings.sizes["image"] + 1:
        raise LossmapError(
            f"The Dataset holds the layouts of {embeddings.sizes['bound'] - 1} images and {embeddings.sizes['image']}"
            " names. Where images differ in layout, isel can't pick some: lossmap.select_images can."
        )


def _flat(values: Any) -> NDArray[Any]:
    """(rows, columns, d) -> (vectors, d)."""
    values = _plain(values)
    return values.reshape(-1, values.shape[-1])


def _two_axes(values: Any, what: str) -> NDArray[Any]:
    values = _plain(values)
    if values.dtype.kind not in "fiub" or values.ndim != 2 or not values.size:
        raise LossmapError(
            f"{what}: is an array of {values.dtype}, shape {values.shape}; wanted real numbers, (vectors, features),"
            " none empty."
        )
    return values if values.dtype in (np.float16, np.float32) else values.astype(np.float32)


def _plain(values: Any) -> NDArray[Any]:
    return values.detach().cpu().float().numpy() if hasattr(values, "detach") else np.asarray(values)


def _three_axes(values: Any, name: str) -> NDArray[Any]:
    try:
        values = _plain(values)
    except ValueError as fault:  # NumPy has no arrays of rows of different lengths
        raise LossmapError(
            f"{name}: is no array ({fault}). Of images that differ in layout, give lists of arrays, and layouts=."
        ) from fault
    if values.dtype.kind not in "fiub" or values.ndim not in (2, 3) or not values.size:
        raise LossmapError(
            f"{name}: is an array of {values.dtype}, shape {values.shape}; wanted real numbers, (items, features) or"
            " (items, vectors, features), none empty."
        )
    values = values if values.dtype in (np.float16, np.float32) else values.astype(np.float32)
    return values[:, None] if values.ndim == 2 else values
