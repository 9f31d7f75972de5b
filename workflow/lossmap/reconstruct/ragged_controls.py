"""Connectors, the model's own and the controls, where images differ in layout.

They are those of `controls`, block by block: what each token gives of its patches is the same map. How many tokens
there are, and which patches each stands for, follows from an image's own layout.

Tokens without a place among others (line ends, separators) are left out of every control: they hold nothing of the
image. Where tokens have a place, another image's tokens lie as the image's own do: at each place, the token that lies
at the nearest relative place in the other's view of the same kind. Where they have none, they are the other's, of the
same kind of view.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import cast

import numpy as np
from torch import Tensor, nn

from lossmap.errors import LossmapError
from lossmap.reconstruct.controls import (
    SETTINGS,
    Connector,
    OfBlocks,
    OtherImage,
    OtherImageAndPatch,
    make_connector,
)
from lossmap.reconstruct.grids import OF_STORE
from lossmap.reconstruct.places import grids_of, places, tokens_per_view
from lossmap.reconstruct.ragged import Ragged, Sizes, stacked
from lossmap.reconstruct.statistics import Statistics
from lossmap.store.layouts import Shape, Span


class RaggedConnector(nn.Module):
    """From the ragged embeddings of a store to the pairs that a reconstructor learns from.

    inner: the control as it is for one block. sizes: what a reconstructor of it reads and gives. The rest: see
    `controls.Connector`.
    """

    blocks = None

    def __init__(self, kind: str, inner: Connector, shapes: Iterable[Shape], features: int):
        super().__init__()
        self.kind, self.inner = kind, inner
        self.post_shape = None, inner.post_shape[1]
        self.sizes = Sizes.of(map(self.shape, shapes), features, inner.post_shape[1])

    @property
    def lossless(self) -> bool:
        return self.inner.lossless

    @property
    def known_fvu(self) -> float | None:
        return self.inner.known_fvu

    @property
    def reads_post(self) -> bool:
        return self.inner.reads_post

    def partner(self, n: int) -> np.ndarray | None:
        return self.inner.partner(n)

    def shape(self, shape: Shape) -> Shape:
        """Of its post, from that of the store's."""
        return shape_through(self.kind, shape)

    def forward(
        self, images: np.ndarray, pre: Ragged, post: Ragged | None, partner_post: Ragged | None
    ) -> tuple[Ragged, Ragged]:
        """images (b,), their numbers; pre, all rows, standardised; post and partner_post, all tokens as stored, each
        None if not used; with the shapes of the store. Returns: targets of pre, and post."""
        shapes = tuple(map(self.shape, pre.shapes))
        numbers = [places(shape).targets for shape in shapes]
        if isinstance(self.inner, OtherImageAndPatch):
            seed = self.inner.seed
            orders = (
                np.random.default_rng([seed, int(i)]).permutation(len(n)) for i, n in zip(images, numbers, strict=True)
            )
            numbers = [n[order] for n, order in zip(numbers, orders, strict=True)]
        counts = np.array([len(some) for some in numbers])
        targets = Ragged(pre.rows[stacked(numbers, pre.counts, pre.device)], counts, shapes)
        tokens = np.array([shape.tokens for shape in shapes])
        if isinstance(self.inner, OfBlocks):
            return targets, Ragged(self.map(self.grouped(pre)), tokens, shapes)
        if isinstance(self.inner, OtherImage):
            assert partner_post is not None
            chosen = [partner_tokens(one, other) for one, other in zip(shapes, partner_post.shapes, strict=True)]
            rows = partner_post.rows[stacked(chosen, partner_post.counts, pre.device)]
            return targets, Ragged(rows, tokens, shapes)
        assert post is not None
        return targets, Ragged(post.rows, tokens, shapes)

    def grouped(self, pre: Ragged) -> Tensor:
        """All rows of pre -> (tokens of all images, patches per token * D')."""
        return pre.rows[pre.index(lambda shape: self.shape(shape).blocks.patches)].flatten(1)

    def map(self, grouped: Tensor) -> Tensor:
        """See `controls.OfBlocks.map`; (rows, patches per token * D') -> (rows, D)."""
        return cast(OfBlocks, self.inner).map(grouped[None])[0]


def make_ragged_connector(
    spec: dict, shapes: list[Shape], features: int, features_out: int, seed: int, statistics: Statistics | None = None
) -> RaggedConnector:
    """The connector of a model that a spec describes, for images of these shapes.

    Parameters: spec, seed and statistics: see `controls.make_connector`; features, of pre; features_out, of the
        model's post.
    Raises: LossmapError as there; where a view can't be cut (its grid is named); and as `Sizes.of`.
    """
    kind = spec.get("kind")
    # Of one block; patches per token of the first image, for all of them are compared later.
    made = kind in SETTINGS and kind not in OF_STORE
    patches = shape_through(str(kind), shapes[0]).blocks.patches.shape[1] if made else 1
    grid = (2, 2) if kind == "pooling" else (1, patches)
    inner = make_connector(spec, grid, (patches, features), (1, features_out), seed, statistics, post_grid=(1, 1))
    return RaggedConnector(str(kind), inner, shapes, features)


@lru_cache(maxsize=4096)
def shape_through(kind: str, shape: Shape) -> Shape:
    """The shape of a connector's post.

    Raises: LossmapError if a view can't be cut into the blocks that the connector wants.
    """
    placed = any(span.cols for span in shape.spans)
    if kind == "own" or (kind in OF_STORE and not placed):
        return shape
    if kind == "pooling":
        return _pooled(shape)
    if placed:
        return shape._replace(spans=tuple(span._replace(newline=0) for span in shape.spans if span.cols))
    return _cut(kind, shape)


@lru_cache(maxsize=4096)
def partner_tokens(shape: Shape, partner: Shape) -> np.ndarray:
    """(tokens of shape,) for each of them, the row of a partner's post that stands in its place; partner: as stored.

    Runs of tokens correspond by their order among those of the same kind of view; those of a partner that has no such
    view, by their order among all.
    """
    kinds, others = _kinds(shape), _kinds(partner)
    starts = np.cumsum([0, *(span.tokens for span in partner.spans)])
    placed = any(span.cols for span in shape.spans)
    rows = []
    for number, span in enumerate(shape.spans):
        mine = [i for i, kind in enumerate(kinds) if kind == kinds[number]]
        theirs = [i for i, kind in enumerate(others) if kind == kinds[number]]
        theirs = theirs or [i for i, kind in enumerate(others) if kind is not None]
        taken = theirs[_nearest(len(mine), len(theirs))[mine.index(number)]]
        other = partner.spans[taken]
        if placed:
            line = _nearest(span.rows, other.rows)[:, None] * (other.cols + other.newline)
            rows.append((starts[taken] + line + _nearest(span.cols, other.cols)).ravel())
        else:
            rows.append(starts[taken] + np.arange(other.tokens))
    return np.concatenate(rows)


def _kinds(shape: Shape) -> list[str | None]:
    """Of the views that each span is made of; None for spans without a place among others."""
    if any(span.cols for span in shape.spans):
        return [shape.views[span.first].kind if span.cols else None for span in shape.spans]
    tokens_per_view(shape)  # which raises where spans aren't one for each view
    return [view.kind for view in shape.views]


def _nearest(count: int, others: int) -> np.ndarray:
    """(count,) which of `others` equal steps of a line holds the centre of each of `count`."""
    return (2 * np.arange(count) + 1) * others // (2 * count)


def _pooled(shape: Shape) -> Shape:
    """A token for each 2 x 2 patches of a view that the model's tokens all stand for."""
    wanted = np.zeros(shape.patches, dtype=bool)
    wanted[places(shape).targets] = True
    spans = []
    for number, (view, start) in enumerate(zip(shape.views, shape.starts, strict=True)):
        if view.rows % 2 or view.cols % 2:
            raise LossmapError(
                f"Connector pooling: a grid of {view.rows} x {view.cols} patches, of an image of {grids_of(shape)}, "
                "can't be cut into 2 x 2 blocks. Leave this connector out for this model."
            )
        raster = wanted[start : start + view.rows * view.cols].reshape(view.rows // 2, 2, view.cols // 2, 2)
        whole = np.asarray(raster.all(axis=(1, 3)))  # a rectangle: the window of a span, or its part in this view
        if whole.any():
            down, along = np.flatnonzero(whole.any(axis=1)), np.flatnonzero(whole.any(axis=0))
            spans.append(Span(len(down), len(along), first=number, merge=2, top=int(down[0]), left=int(along[0])))
    return shape._replace(spans=tuple(spans))


def _cut(kind: str, shape: Shape) -> Shape:
    """Each view cut into squares of patches, one for each of its tokens, which have no place in the model."""
    tokens, spans = tokens_per_view(shape), []
    for number, view in enumerate(shape.views):
        merge = round((view.rows * view.cols / tokens) ** 0.5)
        if merge < 1 or view.rows % merge or view.cols % merge or view.rows * view.cols != tokens * merge**2:
            raise LossmapError(
                f"Control {kind}: a view of {view.rows} x {view.cols} patches, of an image of {grids_of(shape)}, can't "
                f"be cut into {tokens} squares, one for each token of the model's connector. Leave this control out "
                "for this model."
            )
        spans.append(Span(view.rows // merge, view.cols // merge, first=number, merge=merge))
    return shape._replace(spans=tuple(spans))
