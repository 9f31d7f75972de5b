"""Opening embeddings, whether or not post is stored."""

from pathlib import Path

import xarray as xr
from xarray.core import indexing

from lossmap.store.boxes import with_ragged_boxes
from lossmap.store.images import is_ragged
from lossmap.store.index import open_store
from lossmap.store.layouts import patch_boxes
from lossmap.store.rows import Derived


def open_embeddings(index: str | Path, device: str = "cpu") -> xr.Dataset:
    """Open a store of embeddings that `embed` or a study wrote; nothing is read before values are asked for.

    Parameters: index, of the store, such as results/mini/embeddings/seedbench/llava-mini.json. device: where post is
        computed from pre when it is read, by the model's own connector, if it is not stored.
    Returns: the Dataset of `open_store`, and patch_box (image, patch, edge): left, top, right, bottom in pixels of the
        original image; of a ragged one patch_box (patch, edge) and token_box (token, edge), NaN where a patch or a
        token has no place.
    Raises: as `open_store`; LossmapError if the connector can't be loaded or is not the one that made the store.
    """
    store = open_store(index)
    if not store.attrs["post"]["stored"]:
        from lossmap.vlm.recompute import connector_of  # transformers take seconds to import

        store = open_store(index, connector_of(store.attrs["key"], device))
    return with_patch_boxes(store)


def with_patch_boxes(embeddings: xr.Dataset) -> xr.Dataset:
    """Embeddings with patch_box (image, patch, edge), which is computed when it is read; ragged ones with patch_box
    (patch, edge) and token_box (token, edge), NaN where a row has no place."""
    if is_ragged(embeddings):
        return with_ragged_boxes(embeddings)
    grid = tuple(embeddings.attrs["pre_grid"])
    shape = grid[0] * grid[1], 4
    boxes = Derived(embeddings["box"], shape, lambda box: patch_boxes(box, grid).reshape(-1, *shape))
    place = ("image", "patch", "edge"), indexing.LazilyIndexedArray(boxes)
    found = embeddings.assign(patch_box=place)
    found.encoding = embeddings.encoding  # assign drops where it came from
    return found
