"""Opening an embedding store, whether or not post is stored."""

from pathlib import Path

import xarray as xr

from lossmap.store.index import open_store


def open_embeddings(index: Path, device: str = "cpu") -> xr.Dataset:
    """`open_store`; where post is not stored, it is computed from pre when it is read, by the model's own connector on
    this device.

    Raises: as `open_store`; LossmapError if the connector can't be loaded or is not the one that made the store.
    """
    store = open_store(index)
    if store.attrs["post"]["stored"]:
        return store
    from lossmap.vlm.recompute import connector_of  # transformers take seconds to import

    return open_store(index, connector_of(store.attrs["key"], device))
