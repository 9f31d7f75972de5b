"""What a model lost of each image of a dataset, and where on the image its patches lie."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.errors import LossmapError
from lossmap.store.index import open_store
from lossmap.store.patch_losses import LOSSES, open_patch_losses


def best_losses(path: Path) -> tuple[pd.Index, dict[str, np.ndarray], str, list[int]]:
    """Image ids; the three losses (image, patch) of the best reconstructor; its name; rows and columns of patches."""
    opened = open_patch_losses(path)
    best = opened.attrs["best"]
    losses = opened[list(LOSSES)].sel(reconstructor=best)
    ids = pd.Index(opened["image_id"].values.tolist())
    maps = {name: losses[name].values.reshape(len(ids), -1) for name in LOSSES}
    return ids, maps, best, list(opened.attrs["pre_grid"])


def seen_boxes(embeddings: Path, patch_loss: Path, grid: list[int]) -> pd.Series:
    """Left, top, right, bottom of what the model saw, in pixels of the original image, by image id.

    Raises: LossmapError if the embeddings have another grid of patches than the losses.
    """
    store = open_store(embeddings)
    if list(store.attrs["pre_grid"]) != list(grid):
        raise LossmapError(
            f"{patch_loss}: has {grid} patches, {embeddings} has {store.attrs['pre_grid']}: they are of different"
            f" inputs. Delete {patch_loss} and run again."
        )
    return pd.Series(store["box"].values.astype(float).tolist(), index=store["image_id"].values)
