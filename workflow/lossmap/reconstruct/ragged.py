"""Embeddings of images that differ in layout, and what a reconstructor has to know of them.

No row is filled in: images lie one after another, so that what is learned, measured or averaged is of real rows alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from lossmap.errors import LossmapError
from lossmap.reconstruct.places import Grid, places, tokens_per_view
from lossmap.store.images import spread
from lossmap.store.layouts import Shape

REFERENCE = (24, 24)  # cells of a view in which places are learned: the grid of the paper's models


@dataclass(frozen=True, eq=False)
class Runs:
    """Rows of several images, one image after another; taken apart by images, as a tensor is along its first axis.

    rows (sum of counts, ...); counts (images,), rows of each.
    """

    rows: Tensor
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, images: np.ndarray) -> Self:
        """Images by number, in the order asked."""
        counts = self.counts[images]
        index = torch.from_numpy(spread(self.starts[images], counts)).to(self.device)
        return self._of(self.rows[index], counts, images)

    def split(self, size: int) -> list[Self]:
        """`size` images in each, but for the last."""
        return [self._slice(first, min(first + size, len(self))) for first in range(0, len(self), size)]

    def tensor_split(self, pieces: int) -> list[Self]:
        """So many pieces of about as many images."""
        cuts = [piece[[0, -1]] for piece in np.array_split(np.arange(len(self)), pieces)]
        return [self._slice(int(first), int(last) + 1) for first, last in cuts]

    def _slice(self, first: int, stop: int) -> Self:
        rows = self.rows[self.starts[first] : self.starts[first] + self.counts[first:stop].sum()]
        return self._of(rows, self.counts[first:stop], np.arange(first, stop))

    def _of(self, rows: Tensor, counts: np.ndarray, images: np.ndarray) -> Self:
        """These rows of some of the images."""
        return replace(self, rows=rows, counts=counts)

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each image's rows begin."""
        return np.cumsum(self.counts) - self.counts

    @property
    def device(self) -> torch.device:
        return self.rows.device


@dataclass(frozen=True, eq=False)
class Ragged(Runs):
    """`Runs` of images that differ in layout.

    rows (sum of counts, width), or (sum of counts,); shapes, of each image: those of post as a reconstructor reads it.
    Rows are all tokens of a shape, or its targets, see `places.Places`.
    """

    shapes: tuple[Shape, ...]

    def _of(self, rows: Tensor, counts: np.ndarray, images: np.ndarray) -> Self:
        return replace(self, rows=rows, counts=counts, shapes=tuple(self.shapes[i] for i in images))

    def float(self) -> "Ragged":
        return self.with_rows(self.rows.float())

    def with_rows(self, rows: Tensor) -> "Ragged":
        """Others of the same images, as many of each."""
        return Ragged(rows, self.counts, self.shapes)

    def __add__(self, other: "Ragged") -> "Ragged":
        return self.with_rows(self.rows + other.rows)

    def targets(self, rows: Tensor) -> "Ragged":
        """The targets of the same images."""
        counts = np.array([len(places(shape).targets) for shape in self.shapes])
        return Ragged(rows, counts, self.shapes)

    def index(self, rows: Callable[[Shape], np.ndarray]) -> Tensor:
        """The rows that are named by their numbers within an image of a shape, of all images."""
        return stacked([rows(shape) for shape in self.shapes], self.counts, self.device)

    def alike(self) -> Iterator[tuple[np.ndarray, Shape]]:
        """Which images are of one shape, for each shape."""
        found: dict[Shape, list[int]] = {}
        for image, shape in enumerate(self.shapes):
            found.setdefault(shape, []).append(image)
        for shape, images in found.items():
            yield np.array(images), shape


def stacked(numbers: Sequence[np.ndarray], lengths: Iterable[int], device: Any = "cpu") -> Tensor:
    """Row numbers within each of several runs -> row numbers among all, one run after another.

    Parameters: numbers, of each run, of any shape but for the first axis alike; lengths, rows of each run.
    """
    before = np.cumsum([0, *lengths][: len(numbers)])
    return torch.from_numpy(np.concatenate([some + first for some, first in zip(numbers, before, strict=True)])).to(
        device
    )


def flat(values: Any) -> Tensor:
    """All numbers of a batch of either kind. Ragged ones in full precision, which accelerate gives tensors alone."""
    return values.rows.float() if isinstance(values, Ragged) else values


def squared(values: Any) -> Any:
    return values.with_rows(values.rows.square()) if isinstance(values, Ragged) else values.square()


def image_means(values: Tensor | Ragged) -> Tensor:
    """Of each image, over its patches: (images, patches) or ragged (patches,) -> (images,)."""
    if not isinstance(values, Ragged):
        return values.mean(dim=1)
    # By NumPy: a GPU adds up in any order.
    sums = np.add.reduceat(values.rows.double().cpu().numpy(), values.starts)
    return torch.from_numpy(sums / values.counts)


class Sizes(NamedTuple):
    """What a reconstructor of ragged embeddings is built for.

    features, of pre, and features_out, of post. patches_per_token: of each token that has a place; None where none has,
    and then tokens: how many are made of each view. reference: the grid of places that are learned.
    """

    features: int
    features_out: int
    patches_per_token: int | None
    tokens: int | None
    reference: Grid = REFERENCE

    @classmethod
    def of(cls, shapes: Iterable[Shape], features: int, features_out: int) -> "Sizes":
        """Of all images of a store, whose shapes, as reconstructors read them, are these.

        Raises: LossmapError if they differ in how many patches a token stands for, or how many are made of a view.
        """
        found = {_per_token(shape) for shape in shapes}
        if len(found) != 1:
            told = sorted(_told(*one) for one in found)
            raise LossmapError(
                f"The images' tokens differ: {' or '.join(told)}. A reconstructor reads tokens that stand for equally"
                " many patches; see this model through square views (view: square)."
            )
        return cls(features, features_out, *found.pop())

    @classmethod
    def taken_from(cls, architecture: dict) -> "Sizes":
        """What `plain` gave, taken out of a description."""
        architecture.pop("ragged")
        values = {name: architecture.pop(name) for name in cls._fields}
        return cls(**values | {"reference": tuple(values["reference"])})

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"ragged": True, **self._asdict(), "reference": list(self.reference)}

    def check(self, shapes: Iterable[Shape]) -> None:
        """Raises: LossmapError if images of these shapes are not what the reconstructor was built for."""
        for shape in dict.fromkeys(shapes):
            if (found := _per_token(shape)) != (self.patches_per_token, self.tokens):
                raise LossmapError(
                    f"The reconstructor was built for {_told(self.patches_per_token, self.tokens)}, and the image has"
                    f" {_told(*found)}: embeddings of another model, or another view setting."
                )


def _per_token(shape: Shape) -> tuple[int | None, int | None]:
    tokens, patches = shape.blocks
    return (patches.shape[1], None) if len(tokens) else (None, tokens_per_view(shape))


def _told(patches: int | None, tokens: int | None) -> str:
    return f"{tokens} tokens a view without a place" if patches is None else f"{patches} patches a token"
