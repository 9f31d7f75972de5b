"""Opening an embedding store, whether or not post is stored."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from lossmap.store import open_store


def open_embeddings(index: Path, device: str = "cpu") -> xr.Dataset:
    """`open_store`; where post is not stored, it is computed from pre when it is read, by the model's own connector on
    this device.

    Raises: as `open_store`; LossmapError if the connector can't be loaded or is not the one that made the store.
    """
    return open_store(index, recompute_of(index, device))


def recompute_of(index: Path, device: str = "cpu") -> Callable[[np.ndarray], np.ndarray] | None:
    """What gives post for rows of pre, for `open_store`; None where post is stored."""
    attributes = open_store(index).attrs
    if attributes["post"]["stored"]:
        return None
    from lossmap.vlm.recompute import connector_of  # transformers take seconds to import

    return connector_of(attributes["provenance"], device)
