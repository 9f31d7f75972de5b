"""What readers learn from: embeddings of one side of a store's connector, with questions and their answers."""

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lossmap.measures.seeds import seed_for
from lossmap.readers.asked import Asked, Lexicon
from lossmap.readers.controls import control_tokens
from lossmap.readers.places import PLACES, encoded, relative_boxes
from lossmap.readers.questions import Questions
from lossmap.reconstruct.ragged import Runs, stacked
from lossmap.store.images import Images

BLOCK_BYTES = 2**28  # of float32 embeddings read at once
LEAST = 1e-4  # of a feature's standard deviation: one that hardly varies is not blown up


class Scale(NamedTuple):
    """Mean and standard deviation (features,) of what is read; of all rows alike."""

    mean: Tensor
    std: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        return (values.float() - self.mean) / self.std

    @classmethod
    def of(cls, rows: Iterator[Tensor]) -> "Scale":
        """Of blocks of rows (n, features), in float64."""
        count, total, square = 0, torch.zeros(()), torch.zeros(())
        for block in rows:
            block = block.double()
            count, total, square = count + len(block), total + block.sum(0), square + block.square().sum(0)
        mean = total / count
        std = (square / count - mean.square()).clamp_min(0).sqrt()
        return cls(mean.float(), std.clamp_min(max(LEAST * float(std.max()), 1e-12)).float())


class Material:
    """Questions with the embeddings of their images, by image, for `Batches` and `HeldOut`. Nothing is kept in memory.

    Images are counted among those that questions are about, in the order of the store. Each row of embeddings is
    standardised and followed by where it lies.

    Parameters: store, a Dataset of embeddings. side: "pre" or "post", None for the questions alone. questions, lexicon:
        row i of both is the same question. scale: of the embeddings; None: measured of the images of these questions.
        control: see `control_tokens`; the tokens that it makes of pre, in place of pre. seed: of what it draws.
    """

    def __init__(
        self,
        store,
        side: str | None,
        questions: Questions,
        lexicon: Lexicon,
        scale: Scale | None = None,
        device: str = "cpu",
        control: str | None = None,
        seed: int = 0,
    ):
        self.control, self.seed, self.ids = control, seed, store["image_id"].values
        self.store, self.side, self.questions, self.lexicon = store, side, questions, lexicon
        self.device, self.index = torch.device(device), store.encoding.get("source", "embeddings in memory")
        # Where images lie is read once, not for each image; it is little beside embeddings.
        places = {name: store[name].compute() for name in ("size", "box", "view_box") if name in store}
        self.located = Images(store.assign(places))
        order = np.argsort(questions.images, kind="stable")
        self.images, first, self.counts = np.unique(questions.images[order], return_index=True, return_counts=True)
        self.asked = [order[start : start + count] for start, count in zip(first, self.counts, strict=True)]
        self.vectors = lexicon.vectors.to(self.device)
        self.scale = None if side is None else scale or Scale.of(self._stored(self.images))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def features(self) -> int | None:
        """Of an embedding, without its place."""
        return None if self.side is None else self.store[self.side].shape[-1]

    @property
    def ragged(self) -> bool:
        """Whether batches are to be filled by rows, not by images."""
        return self.side is not None and self.located.ragged

    @cached_property
    def target_counts(self) -> np.ndarray:
        """(images,) rows of each."""
        if self.side is None:
            return np.ones(len(self.images), np.int64)
        if self.control:
            rows = [len(control_tokens(shape, self.control, 0)) for shape in self.located.shapes]
        else:
            rows = [shape.patches if self.side == "pre" else shape.tokens for shape in self.located.shapes]
        return np.array(rows)[self.located.kinds[self.images]]

    @property
    def image_bytes(self) -> int:
        """Memory that an image takes in float32, on average."""
        return round(4 * self.target_counts.mean() * ((self.features or 0) + PLACES))

    @property
    def block(self) -> int:
        """Images that take some 256 MB."""
        return max(1, BLOCK_BYTES // self.image_bytes)

    def blocks(self, images, size: int | None = None) -> Iterator[tuple[Asked, Runs]]:
        """What `load` gives, `size` images at a time; by default as many as `block`."""
        for some in self.pieces(np.asarray(images), size):
            yield self.load(some)

    def load(self, images) -> tuple[Asked, Runs]:
        """Of images by number, in any order: what a reader is given, and the right answers (questions,)."""
        images = np.asarray(images, dtype=np.int64)
        questions = np.concatenate([self.asked[image] for image in images])
        counts = self.counts[images]
        words = Runs(self.lexicon.numbers[questions].to(self.device), counts)
        targets = Runs(torch.from_numpy(self.questions.targets[questions]).to(self.device), counts)
        return Asked(self._seen(images), words, self.vectors), targets

    def questions_of(self, images) -> np.ndarray:
        """Numbers of the questions in the order in which `load` gives them."""
        return np.concatenate([self.asked[image] for image in images])

    def _seen(self, images: np.ndarray) -> Runs | None:
        if self.scale is None:
            return None
        counts, width = self.target_counts[images], (self.features or 0) + PLACES
        rows, filled = torch.empty(int(counts.sum()), width), 0
        for piece in self.pieces(images):
            some = self.images[piece]
            values, places = self.scale(self._rows(some)), [self._boxes(image) for image in some]
            if self.control:
                tokens = [self._tokens(image) for image in some]
                values = values[stacked(tokens, map(len, places))].mean(dim=1)
                places = [_around(boxes[rows]) for boxes, rows in zip(places, tokens, strict=True)]
            rows[filled : filled + len(values), : width - PLACES] = values
            rows[filled : filled + len(values), width - PLACES :] = torch.from_numpy(
                np.concatenate([encoded(boxes) for boxes in places])
            )
            filled += len(values)
        return Runs(rows.to(self.device), counts)

    def _boxes(self, image: int) -> np.ndarray:
        return relative_boxes(self.located, str(self.side), int(image))

    def _tokens(self, image: int) -> np.ndarray:
        """Rows of pre that each token of the control is made of."""
        seed = seed_for(self.seed, str(self.control), str(self.ids[image]))
        return control_tokens(self.located.shape(image), str(self.control), seed)

    def pieces(self, images: np.ndarray, size: int | None = None) -> list[np.ndarray]:
        """`size` images in each; by default as many as `block`."""
        size = size or self.block
        return [images[start : start + size] for start in range(0, len(images), size)]

    def _stored(self, images: np.ndarray) -> Iterator[Tensor]:
        return map(self._rows, self.pieces(images))

    def _rows(self, images: np.ndarray) -> Tensor:
        """Embeddings of images of the store, one image after another, as stored."""
        if self.located.ragged:
            return torch.from_numpy(self.located.rows(str(self.side), images))
        return torch.from_numpy(self.located.read(str(self.side), images)).flatten(0, 1)


def _around(boxes: np.ndarray) -> np.ndarray:
    """(tokens, g, 4) -> (tokens, 4): what all boxes of a token cover."""
    return np.concatenate([boxes[..., :2].min(axis=1), boxes[..., 2:].max(axis=1)], axis=1)
