"""What a reconstructor learns from: standardised post and pre of the images of a store."""

import json
from collections.abc import Iterator

import numpy as np
import torch

from lossmap.errors import LossmapError
from lossmap.reconstruct.controls import Connector, make_connector
from lossmap.reconstruct.statistics import Statistics
from lossmap.store import CHUNK_BYTES
from lossmap.store.memory import HERE

BLOCK_BYTES = 2**28  # of float32 embeddings held at once; part of how sums are rounded, so no argument
GAP = 16  # images that are read in passing, at most, to reach the next one


class Pairs:
    """Inputs and targets by image number. Nothing is kept in memory.

    Parameters: store, a Dataset of embeddings, of the model that the statistics are of (any data set).
        connector, statistics: those that belong together. device: where the tensors go.
    Raises: LossmapError if the store's embeddings have other shapes than the statistics.
    """

    def __init__(self, store, connector: Connector, statistics: Statistics, device="cpu"):
        self.store, self.index, self.device = store, place_of(store), torch.device(device)
        self.connector, self.statistics = connector.to(device), statistics.to(device)
        self.pre_shape, self.post_shape = self.store["pre"].shape[1:], connector.post_shape
        self.partners = connector.partner(len(self))
        for name, width, measured in (
            ("pre", self.pre_shape[1], len(statistics.pre_mean)),
            ("post", self.post_shape[1], len(statistics.post_mean)),
        ):
            if width != measured:
                raise LossmapError(
                    f"{self.index}: {name} of connector {statistics.connector} has {width} features, and its "
                    f"statistics are of {measured}: another model's. Give those of this store's model."
                )

    def __len__(self) -> int:
        return self.store.sizes["image"]

    def read(self, images) -> tuple[torch.Tensor, torch.Tensor]:
        """post (B, *post_shape) and pre (B, *pre_shape), standardised float32, of images in any order.

        Raises: ValueError if there are none, or an image number is not in the store.
        """
        images = np.asarray(images, dtype=np.int64)
        if not len(images):
            raise ValueError("no images are asked for; wanted at least one")
        if not 0 <= images.min() <= images.max() < len(self):
            raise ValueError(f"images {images.min()} to {images.max()} are asked for; the store has {len(self)}")
        pre = self.statistics.standardise_pre(self._stored("pre", images))
        post = self._stored("post", images) if self.connector.reads_post else None
        partner_post = None if self.partners is None else self._stored("post", self.partners[images])
        target, post = self.connector(images, pre, post, partner_post)
        return self.statistics.standardise_post(post), target

    def blocks(self, images, size: int | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """What `read` gives, for at most `size` images at a time, in order; by default some 256 MB, at most 1,024."""
        images = np.asarray(images)
        size = size or block_size(self.pre_shape, self.post_shape)
        for start in range(0, len(images), size):
            yield self.read(images[start : start + size])

    def _stored(self, name, images):
        """Embeddings as stored, read in runs: Zarr reads whole chunks, and picks scattered rows from them slowly."""
        array = self.store[name]
        wanted, place = np.unique(images, return_inverse=True)
        gap = min(GAP, max(1, CHUNK_BYTES // (array.nbytes // len(self))))
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > gap) + 1)
        values = [array[run[0] : run[-1] + 1].values[run - run[0]] for run in runs]
        values = np.concatenate(values)[place] if len(values) != 1 or (np.diff(images) != 1).any() else values[0]
        return torch.from_numpy(values).to(self.device)


def pairs_of(store, statistics: Statistics, device="cpu") -> Pairs:
    """Pairs of a store through the connector that the statistics are of."""
    connector = connector_of(json.loads(statistics.connector), store, statistics.seed, statistics)
    return Pairs(store, connector, statistics, device)


def connector_of(spec: dict, store, seed: int, statistics: Statistics | None = None) -> Connector:
    """`make_connector` for the model of a store."""
    grids = {name: store.attrs[name] for name in ("pre_grid", "post_grid")}
    shapes = {f"{name}_shape": store[name].shape[1:] for name in ("pre", "post")}
    return make_connector(spec, **grids, **shapes, seed=seed, statistics=statistics)


def place_of(store) -> str:
    """What messages call a Dataset of embeddings: its index, where it is a store."""
    return store.encoding.get("source", HERE)


def block_size(*shapes: tuple[int, ...]) -> int:
    """How many images with float32 arrays of these shapes are held at once."""
    return max(1, min(1024, BLOCK_BYTES // sum(4 * int(np.prod(shape)) for shape in shapes)))
