"""What a model lost of each image of a dataset, and where on the image its patches lie."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.errors import LossmapError
from lossmap.store.images import is_ragged
from lossmap.store.index import open_store
from lossmap.store.layouts import KINDS, Layout, Shape, ViewShape, one_view
from lossmap.store.patch_losses import ImageLosses, open_patch_losses


def best_losses(path: Path, embeddings: Path | None = None) -> ImageLosses:
    """Losses of the best reconstructor, whose name is attribute best. embeddings: with them, of known layouts.

    Raises: LossmapError if the embeddings have other patches than the losses.
    """
    opened = open_patch_losses(path)
    best = opened.sel(reconstructor=opened.attrs["best"])
    if embeddings is None:
        return ImageLosses(best)
    store = open_store(embeddings)
    if is_ragged(store) or is_ragged(opened):
        same = is_ragged(store) and is_ragged(opened)
        if not (same and all(store[name].equals(opened[name]) for name in ("image_id", "view_offset", "view_shape"))):
            raise LossmapError(
                f"{path}: its images lie otherwise than those of {embeddings}: they are of different inputs. Delete "
                f"{path} and run again."
            )
    elif list(store.attrs["pre_grid"]) != (grid := list(opened.attrs["pre_grid"])):
        raise LossmapError(
            f"{path}: has {grid} patches, {embeddings} has {store.attrs['pre_grid']}: they are of different"
            f" inputs. Delete {path} and run again."
        )
    if not is_ragged(store):
        store = store.assign({name: store[name].load() for name in ("box", "size")})
    return ImageLosses(best, store)


def place_columns(losses: ImageLosses, images: np.ndarray) -> dict[str, list]:
    """Columns of a table of images that say where their patches lie, which `layout_of` reads: grid and box where all
    have the same layout; else view_shape (views of rows, columns, kind and rows of pre without a place) and view_box.

    images: positions, which one each row is about.
    """
    layouts = [losses.layout(image) for image in images]
    if not losses.ragged:
        grid = list(losses.losses.attrs["pre_grid"])
        return {"grid": [grid] * len(layouts), "box": [list(layout.boxes[0]) for layout in layouts]}
    shapes = [
        [[view.rows, view.cols, KINDS.index(view.kind), view.extra] for view in layout.shape.views]
        for layout in layouts
    ]
    return {"view_shape": shapes, "view_box": [[list(box) for box in layout.boxes] for layout in layouts]}


def layout_of(row) -> Layout:
    """Where the patches of an image lie, of a row with width, height and `place_columns`. It says nothing of tokens."""
    size = int(row.width), int(row.height)
    if not hasattr(row, "view_shape") or not np.iterable(row.view_shape):
        shape = one_view([int(side) for side in row.grid], None)
        return Layout(*size, shape, (_box(row.box),))
    views = [[int(value) for value in view] for view in row.view_shape]
    shape = Shape(tuple(ViewShape(rows, cols, KINDS[kind], extra) for rows, cols, kind, extra in views), ())
    return Layout(*size, shape, tuple(_box(box) for box in row.view_box))


def _box(edges) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(edge) for edge in edges)
    return left, top, right, bottom


def known_images(losses: ImageLosses) -> pd.Index:
    """The ids of the images that have losses, in order."""
    return pd.Index(losses.image_ids.tolist())
