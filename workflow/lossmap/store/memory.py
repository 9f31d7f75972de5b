"""Embeddings in memory: the same Dataset as of a store."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from lossmap.errors import LossmapError
from lossmap.store.format import DIMENSIONS
from lossmap.store.ragged import ragged_from_arrays
from lossmap.store.writer import check_finite

HERE = "embeddings in memory"  # what messages call them
Embeddings: TypeAlias = xr.Dataset | tuple[ArrayLike, ArrayLike]  # the pair: pre and post, or lists of arrays


def in_memory(embedded: Iterable[dict[str, np.ndarray]], image_ids: list[str], attributes: dict) -> xr.Dataset:
    """What `PartWriter` would write of these batches, as `open_store` would open it.

    Parameters: embedded, batches of every array of `DIMENSIONS`, pre and post in the dtype that they are kept in;
        image_ids, in order; attributes, how they were made, with pre_grid and post_grid.
    Raises: StoreError where a value is not finite, naming the image.
    """
    batches, first = [], 0
    for batch in embedded:
        for name, values in batch.items():
            check_finite(HERE, name, values, batch.get(f"{name}_mean"), image_ids[first:])
        batches.append(batch)
        first += len(batch["pre"])
    arrays = {name: np.concatenate([batch[name] for batch in batches]) for name in DIMENSIONS}
    post = {"shape": list(arrays["post"].shape[1:]), "dtype": str(arrays["post"].dtype), "stored": True}
    variables = {name: (DIMENSIONS[name], values) for name, values in arrays.items()}
    return xr.Dataset(variables, _ids(image_ids), attributes | {"post": post})


def from_arrays(
    pre: ArrayLike,
    post: ArrayLike,
    *,
    pre_grid: Sequence[int] | None = None,
    post_grid: Sequence[int] | None = None,
    image_ids: Iterable[object] | None = None,
) -> xr.Dataset:
    """Embeddings of any tool, as what `embed` returns, for everything that takes embeddings.

    Parameters: pre and post, real arrays or tensors: (n, d), one vector for each item, or (n, patches, d) and
        (n, tokens, d2); item i is the same in both. pre_grid (rows, columns) of the patches, in raster order, and
        post_grid of the tokens, where they have a place; by default one row of patches, and the same of as many tokens.
        image_ids: names, by default numbers.
        Where images differ in how many patches or tokens they have, pre and post are lists of arrays, one for each
        image, (patches, d) or, where patches form a grid, (rows, columns, d); post likewise. Grids are then taken from
        the arrays: tokens in a grid stand for squares of patches, as many tokens as patches for one each; others have
        no place.
    Returns: a Dataset with pre, post and their means, as of `embed`, without boxes and sizes.
    Raises: LossmapError if shapes don't fit each other or a grid, or a value is not finite (the item is named).
    """
    if _differ(pre) or _differ(post):
        return _ragged(pre, post, pre_grid, post_grid, image_ids)
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
        return embeddings
    if isinstance(embeddings, tuple | list) and len(embeddings) == 2:
        return from_arrays(*embeddings)
    raise LossmapError(
        f"Embeddings are given as a {type(embeddings).__name__}; wanted a Dataset of embed or open_embeddings, or a"
        " pair of arrays, (pre, post)."
    )


def _differ(values: object) -> bool:
    """Whether these are arrays of several images that don't fit into one, or grids of vectors."""
    shapes = {np.shape(one) for one in values if hasattr(one, "shape")} if isinstance(values, list | tuple) else set()
    return len(shapes) > 1 or any(len(shape) == 3 for shape in shapes)


def _ragged(pre: Any, post: Any, pre_grid: Any, post_grid: Any, image_ids: Iterable[object] | None) -> xr.Dataset:
    if pre_grid is not None or post_grid is not None:
        raise LossmapError(
            "Images differ in how many patches or tokens they have, and one grid is given for all. Give each image's"
            " as an array (rows, columns, features)."
        )
    ids = [str(name) for name in (range(len(pre)) if image_ids is None else image_ids)]
    if not len(pre) == len(post) == len(ids):
        raise LossmapError(
            f"pre has {len(pre)} items, post {len(post)} and image_ids {len(ids)}; wanted as many in each."
        )
    sides = []
    for name, arrays in (("pre", pre), ("post", post)):
        sides.append([_of_one_image(values, name, image) for image, values in zip(ids, arrays, strict=True)])
        for image, values in zip(ids, sides[-1], strict=True):
            check_finite("these embeddings", name, values.reshape(1, -1, values.shape[-1]), None, [image])
    # Told where a store would tell its shape; tokens are of any number.
    about: dict[str, Any] = {"pre_grid": None, "post_grid": None, "key": {}}
    about["post"] = {"shape": [None, sides[1][0].shape[-1]], "dtype": str(sides[1][0].dtype), "stored": True}
    return ragged_from_arrays(sides[0], sides[1], ids, about)


def _of_one_image(values: Any, name: str, image: str) -> NDArray[Any]:
    values = values.detach().cpu().float().numpy() if hasattr(values, "detach") else np.asarray(values)
    if values.dtype.kind not in "fiub" or values.ndim not in (2, 3) or not values.size:
        raise LossmapError(
            f"{name} of image {image}: is an array of {values.dtype}, shape {values.shape}; wanted real numbers,"
            " (vectors, features) or (rows, columns, features), none empty."
        )
    return values if values.dtype in (np.float16, np.float32) else values.astype(np.float32)


def _ids(image_ids: list[str]) -> dict:
    return {"image_id": ("image", np.array(image_ids, dtype=str))}


def _three_axes(values: ArrayLike, name: str) -> NDArray[Any]:
    values = values.detach().cpu().float().numpy() if hasattr(values, "detach") else np.asarray(values)
    if values.dtype.kind not in "fiub" or values.ndim not in (2, 3) or not values.size:
        raise LossmapError(
            f"{name}: is an array of {values.dtype}, shape {values.shape}; wanted real numbers, (items, features) or"
            " (items, vectors, features), none empty."
        )
    values = values if values.dtype in (np.float16, np.float32) else values.astype(np.float32)
    return values[:, None] if values.ndim == 2 else values
