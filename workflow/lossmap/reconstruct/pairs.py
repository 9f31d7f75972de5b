"""What a reconstructor learns from: standardised post and pre of the images of a store."""

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch

from lossmap.errors import LossmapError
from lossmap.reconstruct.controls import Connector, make_connector
from lossmap.reconstruct.places import places
from lossmap.reconstruct.ragged import Ragged
from lossmap.reconstruct.ragged_controls import RaggedConnector, make_ragged_connector
from lossmap.reconstruct.statistics import Statistics
from lossmap.store.images import Images, is_ragged
from lossmap.store.layouts import Shape
from lossmap.store.memory import HERE

BLOCK_BYTES = 2**28  # of float32 embeddings held at once; part of how sums are rounded, so no argument


class Pairs:
    """Inputs and targets by image number. Nothing is kept in memory.

    pre_shape (patches, features) and post_shape (tokens, width) of each image; where images differ in layout, patches
    and tokens are None, and post and pre are `Ragged`: all tokens, and the targets alone. sizes: what a reconstructor
    has to know of ragged embeddings; None of others.

    Parameters: store, a Dataset of embeddings, of the model that the statistics are of (any data set).
        connector, statistics: those that belong together. device: where the tensors go.
    Raises: LossmapError if the store's embeddings have other shapes than the statistics.
    """

    def __init__(self, store, connector: Connector | RaggedConnector, statistics: Statistics, device="cpu"):
        self.store, self.index, self.device = store, place_of(store), torch.device(device)
        self.connector: Any = connector.to(device)
        self.statistics = statistics.to(device)
        self.pre_shape: Any = self.store["pre"].shape[1:]
        self.post_shape: Any = connector.post_shape
        self.ragged, self.sizes = is_ragged(store), getattr(connector, "sizes", None)
        if self.ragged:
            self.pre_shape = None, self.pre_shape[0]
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

    @cached_property
    def images(self) -> Images:
        """Where each image lies in the store."""
        return Images(self.store)

    def shape(self, image: int) -> Shape:
        """Of an image as a reconstructor of ragged embeddings reads it, through the connector."""
        return self.connector.shape(self.images.shape(image))

    @cached_property
    def target_counts(self) -> np.ndarray:
        """(n,) how many patches of each image of ragged embeddings are targets."""
        counts = [len(places(self.connector.shape(shape)).targets) for shape in self.images.shapes]
        return np.array(counts)[self.images.kinds]

    @cached_property
    def numbers(self) -> tuple[int, int]:
        """How many numbers an image has in pre and in post; where images differ, on average."""
        if not self.ragged:
            return int(np.prod(self.pre_shape)), int(np.prod(self.post_shape))
        tokens = np.array([self.connector.shape(shape).tokens for shape in self.images.shapes])[self.images.kinds]
        return round(self.target_counts.mean() * self.pre_shape[1]), round(tokens.mean() * self.post_shape[1])

    @property
    def shapes(self) -> dict[str, Any]:
        """What a reconstructor is built for, for JSON: pre_shape, post_shape and blocks, or `Sizes.plain`."""
        if self.sizes is not None:
            return self.sizes.plain()
        blocks = None if self.connector.blocks is None else self.connector.blocks.tolist()
        return {"pre_shape": list(self.pre_shape), "post_shape": list(self.post_shape), "blocks": blocks}

    def read(self, images) -> Any:
        """post (B, *post_shape) and pre (B, *pre_shape), standardised float32, of images in any order.

        Of ragged embeddings, post and the targets of pre, each a `Ragged`.

        Raises: ValueError if there are none, or an image number is not in the store.
        """
        images = np.asarray(images, dtype=np.int64)
        if not len(images):
            raise ValueError("no images are asked for; wanted at least one")
        if not 0 <= images.min() <= images.max() < len(self):
            raise ValueError(f"images {images.min()} to {images.max()} are asked for; the store has {len(self)}")
        if self.ragged:
            return self._read_ragged(images)
        pre = self.statistics.standardise_pre(self._stored("pre", images))
        post = self._stored("post", images) if self.connector.reads_post else None
        partner_post = None if self.partners is None else self._stored("post", self.partners[images])
        target, post = self.connector(images, pre, post, partner_post)
        return self.statistics.standardise_post(post), target

    def _read_ragged(self, images: np.ndarray) -> tuple[Ragged, Ragged]:
        pre = read_rows(self.images, "pre", images, self.device)
        pre = pre.with_rows(self.statistics.standardise_pre(pre.rows))
        post = read_rows(self.images, "post", images, self.device) if self.connector.reads_post else None
        partner = None
        if self.partners is not None:
            partner = read_rows(self.images, "post", self.partners[images], self.device)
        target, post = self.connector(images, pre, post, partner)
        return post.with_rows(self.statistics.standardise_post(post.rows)), target

    def blocks(self, images, size: int | None = None) -> Iterator[Any]:
        """What `read` gives, for at most `size` images at a time, in order; by default some 256 MB, at most 1,024."""
        images = np.asarray(images)
        size = size or (
            block_size(*((each,) for each in self.numbers))
            if self.ragged
            else block_size(self.pre_shape, self.post_shape)
        )
        for start in range(0, len(images), size):
            yield self.read(images[start : start + size])

    @property
    def image_bytes(self) -> int:
        """Memory that post and pre of one image take in float32; where images differ, on average."""
        return 4 * sum(self.numbers)

    def load(self, images: np.ndarray) -> tuple[Any, Any]:
        """What `read` gives, of any number of images, read in blocks, so that what it needs on the side stays small."""
        if self.ragged:
            return self._load_ragged(images)
        first = 0
        for inputs, targets in self.blocks(images):
            if len(inputs) == len(images):
                return inputs, targets
            if first == 0:
                post, pre = (values.new_empty(len(images), *values.shape[1:]) for values in (inputs, targets))
            post[first : first + len(inputs)], pre[first : first + len(targets)] = inputs, targets
            first += len(inputs)
        return post, pre

    def _load_ragged(self, images: np.ndarray) -> tuple[Ragged, Ragged]:
        shapes = tuple(self.shape(image) for image in images)
        counts = np.array([shape.tokens for shape in shapes]), self.target_counts[images]
        found: list[torch.Tensor] = []
        filled = [0, 0]
        for block in self.blocks(images):
            if not found:
                found = [
                    side.rows.new_empty(int(count.sum()), side.rows.shape[1])
                    for side, count in zip(block, counts, strict=True)
                ]
            for i, side in enumerate(block):
                found[i][filled[i] : filled[i] + len(side.rows)] = side.rows
                filled[i] += len(side.rows)
        post, pre = (Ragged(rows, count, shapes) for rows, count in zip(found, counts, strict=True))
        return post, pre

    def _stored(self, name: str, images: np.ndarray) -> torch.Tensor:
        """Embeddings of images that are all alike, as stored."""
        return torch.from_numpy(self.images.read(name, images)).to(self.device)


def pairs_of(store, statistics: Statistics, device="cpu") -> Pairs:
    """Pairs of a store through the connector that the statistics are of."""
    connector = connector_of(json.loads(statistics.connector), store, statistics.seed, statistics)
    return Pairs(store, connector, statistics, device)


def connector_of(spec: dict, store, seed: int, statistics: Statistics | None = None) -> Any:
    """`make_connector` for the model of a store, or `make_ragged_connector`."""
    if is_ragged(store):
        widths = store.sizes["feature"], store.sizes["feature_out"]
        return make_ragged_connector(spec, Images(store).shapes, *widths, seed, statistics)
    grids = {name: store.attrs[name] for name in ("pre_grid", "post_grid")}
    shapes = {f"{name}_shape": store[name].shape[1:] for name in ("pre", "post")}
    return make_connector(spec, **grids, **shapes, seed=seed, statistics=statistics)


def read_rows(images: Images, name: str, which: np.ndarray, device: Any = "cpu") -> Ragged:
    """All rows of pre or of post of some images of ragged embeddings, as stored."""
    shapes = tuple(images.shape(image) for image in which)
    counts = np.array([shape.patches if name == "pre" else shape.tokens for shape in shapes])
    return Ragged(torch.from_numpy(images.rows(name, which)).to(device), counts, shapes)


def place_of(store) -> str:
    """What messages call a Dataset of embeddings: its index, where it is a store."""
    return store.encoding.get("source", HERE)


def block_size(*shapes: tuple[int, ...]) -> int:
    """How many images with float32 arrays of these shapes are held at once."""
    return max(1, min(1024, BLOCK_BYTES // sum(4 * int(np.prod(shape)) for shape in shapes)))
