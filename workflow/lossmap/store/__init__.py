"""Embedding stores, and those of patch losses (`lossmap.store.patch_losses`): the only reader and writer.

A store is one small index, `embeddings/<dataset>/<model>.json`, and the parts that it lists,
`embeddings/<dataset>/<model>/part-<first>-<stop>.zarr`, each a Zarr v3 group that plain `xarray.open_zarr` opens.
A part's `zarr.json` lists the digests of each of its files, and the index holds the SHA-256 of every part's
`zarr.json`, so that a lost, shortened, changed or exchanged file is an error and never a silent zero (Zarr itself reads
a missing chunk as zeros). What is read is compared with its digests, each time; `lossmap verify` compares everything.
Images that differ in layout make a ragged store: see `lossmap.store.images`.
Patch losses are one such group, `patch_loss/<dataset>/<model>.zarr`, whose `zarr.json` holds a digest of itself, too.
"""

from lossmap.store.format import CHUNK_BYTES, StoreError
from lossmap.store.images import Images, is_ragged
from lossmap.store.index import iterate, open_store, write_index
from lossmap.store.layouts import Layout
from lossmap.store.memory import as_embeddings, from_arrays, in_memory
from lossmap.store.writer import PartWriter, RaggedPartWriter, write_part

__all__ = [
    "CHUNK_BYTES",
    "Images",
    "Layout",
    "PartWriter",
    "RaggedPartWriter",
    "StoreError",
    "as_embeddings",
    "from_arrays",
    "in_memory",
    "is_ragged",
    "iterate",
    "open_store",
    "write_index",
    "write_part",
]
