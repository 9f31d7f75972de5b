"""The networks of the ladder where images differ in layout: all tokens of some images -> the targets of each.

They are those of `networks`, as far as those are defined. Where each token has a place, the multilayer perceptron is
the same: it looks at one token at a time. The transformer of the paper ends with a learned map over the whole
sequence, which is defined for one length only; here each token gives the patches that it stands for, and a token's
learned position is that of its place in the view, taken from a reference grid. Where tokens have no place (queries, a
resampler's latents), the learned map over the sequence gives the cells of the reference grid for each view, and a patch
is between the cells that surround its centre: for views of as many patches as the grid has cells, it is the rectangular
network's.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from lossmap.errors import LossmapError
from lossmap.reconstruct.networks import (
    NETWORKS,
    Perceptron,
    Written,
    check_heads,
    encoder,
    hidden_layers,
    learned_places,
    pair,
)
from lossmap.reconstruct.places import Grid, places, target_corners, token_corners
from lossmap.reconstruct.ragged import Ragged, Sizes, stacked
from lossmap.store.layouts import KINDS


def build_ragged_network(architecture: Mapping[str, Any], sizes: Sizes) -> nn.Module:
    """A network with random weights, drawn from torch's current generator.

    Parameters: architecture, as of `networks.build_network`. sizes: what it reads and gives.
    Returns: a module, all tokens of some images -> their targets, with `first` and `last` as there.
    Raises: LossmapError if the architecture is unknown or impossible.
    """
    settings = dict(architecture)
    kind = settings.pop("kind", None)
    if kind not in NETWORKS:
        raise LossmapError(f"network: kind is {kind!r}. Choose one of {', '.join(NETWORKS)}.")
    placed = sizes.patches_per_token is not None
    try:
        if kind == "mlp":
            return (PlacedMLP if placed else ViewMLP)(sizes, **settings)
        return (PlacedTransformer if placed else ViewTransformer)(sizes, **settings)
    except TypeError as error:
        raise LossmapError(f"network: {architecture} can't be built ({error}). Correct its settings.") from None


class OfRagged(nn.Module):
    """A reconstructor that takes `Ragged` post, and gives `Ragged` targets."""


class PlacedMLP(OfRagged, Perceptron):
    """`networks.TokenMLP` on every token that has a place; others (line ends) are not read."""

    def __init__(self, sizes: Sizes, widths: list[int], dropout: float = 0.1):
        super().__init__()
        self.sizes = sizes
        every = [sizes.features_out, *widths, cast(int, sizes.patches_per_token) * sizes.features]
        self.first = nn.Linear(every[0], every[1])
        self.rest = hidden_layers(every[1:], dropout)

    def forward(self, post: Ragged) -> Ragged:
        self.sizes.check(post.shapes)
        return to_targets(post, self.rest(self.first(placed_rows(post))), self.sizes.features)


class PlacedTransformer(OfRagged, Written):
    """All tokens of an image to the patches of each: `networks.SequenceTransformer` without its map over the sequence.

    With H = width: D -> 2H -> H, learned positions, `layers` encoder layers, then H -> 2H -> the features of the
    token's patches. Positions: a vector for each cell of the reference grid and kind of view, between which a token's
    is interpolated, and one for all tokens without a place, which are read and stand for no patch.
    """

    def __init__(self, sizes: Sizes, width: int, layers: int, heads: int, dropout: float = 0.1):
        super().__init__()
        check_heads(width, heads)
        self.sizes = sizes
        self.first = nn.Linear(sizes.features_out, 2 * width)
        self.second = nn.Sequential(nn.GELU(), nn.Linear(2 * width, width))
        cells = sizes.reference[0] * sizes.reference[1]
        self.position = learned_places(len(KINDS) * cells + 1, width)
        self.encoder = encoder(width, layers, heads, dropout)
        self.write = pair(width, 2 * width, cast(int, sizes.patches_per_token) * sizes.features)

    def forward(self, post: Ragged) -> Ragged:
        self.sizes.check(post.shapes)
        tokens = self.second(self.first(post.rows))
        found, order = [], []
        for images, shape in post.alike():  # sequences of one length, so that nothing is filled in
            of_each = torch.from_numpy(post.starts[images][:, None] + shape.blocks.tokens).to(post.device)
            index = torch.from_numpy(post.starts[images]).to(post.device)[:, None]
            index = index + torch.arange(shape.tokens, device=post.device)
            position = between(self.position, *token_corners(shape, self.sizes.reference))
            sequences = tokens.index_select(0, index.flatten()).unflatten(0, index.shape)
            placed = torch.from_numpy(shape.blocks.tokens).to(post.device)
            found.append(self.encoder(sequences + position).index_select(1, placed).flatten(0, 1))
            order.append(of_each.flatten())
        # Back in the order of the rows of post.
        rows = torch.cat(found).index_select(0, torch.cat(order).argsort())
        return to_targets(post, self.write(rows), self.sizes.features)


class ViewMLP(OfRagged, Perceptron):
    """`networks.TokenMLP` of tokens without a place, view by view, on the cells of the reference grid.

    A learned linear map over the tokens of a view, tokens -> cells; the first layer, to whose output each cell adds a
    learned vector, one for each kind of view; then a patch is interpolated between cells, and the other layers follow.
    """

    def __init__(self, sizes: Sizes, widths: list[int], dropout: float = 0.1):
        super().__init__()
        self.sizes = sizes
        every = [sizes.features_out, *widths, sizes.features]
        cells = sizes.reference[0] * sizes.reference[1]
        self.across = nn.Linear(cast(int, sizes.tokens), cells, bias=False)
        self.place = learned_places(len(KINDS) * cells, every[1])
        self.first = nn.Linear(every[0], every[1])
        self.rest = hidden_layers(every[1:], dropout)

    def forward(self, post: Ragged) -> Ragged:
        tokens = by_view(post, self.sizes)
        hidden = self.first(self.across(tokens.transpose(1, 2)).transpose(1, 2))
        hidden = hidden + self.place.unflatten(0, (len(KINDS), -1))[view_kinds(post)]
        return post.targets(self.rest(from_cells(hidden, post, self.sizes.reference)))


class ViewTransformer(OfRagged, Written):
    """`networks.SequenceTransformer` of tokens without a place, view by view: its map over the sequence gives the cells
    of the reference grid, between which patches are interpolated before H -> 2H -> features."""

    def __init__(self, sizes: Sizes, width: int, layers: int, heads: int, dropout: float = 0.1):
        super().__init__()
        check_heads(width, heads)
        self.sizes = sizes
        tokens, cells = cast(int, sizes.tokens), sizes.reference[0] * sizes.reference[1]
        self.first = nn.Linear(sizes.features_out, 2 * width)
        self.second = nn.Sequential(nn.GELU(), nn.Linear(2 * width, width))
        self.position = learned_places(len(KINDS) * tokens, width)
        self.encoder = encoder(width, layers, heads, dropout)
        self.across = pair(tokens, 2 * cells, cells)
        self.write = pair(width, 2 * width, sizes.features)

    def forward(self, post: Ragged) -> Ragged:
        tokens = self.second(self.first(by_view(post, self.sizes)))
        tokens = self.encoder(tokens + self.position.unflatten(0, (len(KINDS), -1))[view_kinds(post)])
        cells = self.across(tokens.transpose(1, 2)).transpose(1, 2)
        return post.targets(self.write(from_cells(cells, post, self.sizes.reference)))


def placed_rows(post: Ragged) -> Tensor:
    """The tokens that have a place, of all images."""
    return post.rows.index_select(0, post.index(lambda shape: shape.blocks.tokens))


def to_targets(post: Ragged, blocks: Tensor, features: int) -> Ragged:
    """What the tokens of `placed_rows` give, (tokens, patches of each * features) -> the targets of the same images."""
    orders = [places(shape).order for shape in post.shapes]
    order = stacked(orders, [len(one) for one in orders], post.device)
    return post.targets(blocks.reshape(-1, features).index_select(0, order))


def by_view(post: Ragged, sizes: Sizes) -> Tensor:
    """Tokens without a place -> (views of all images, tokens, D)."""
    sizes.check(post.shapes)
    return post.rows.unflatten(0, (-1, cast(int, sizes.tokens)))


def view_kinds(post: Ragged) -> Tensor:
    """(views of all images,) numbers of `layouts.KINDS`."""
    kinds = [KINDS.index(view.kind) for shape in post.shapes for view in shape.views]
    return torch.tensor(kinds, device=post.device)


def from_cells(values: Tensor, post: Ragged, grid: Grid) -> Tensor:
    """(views of all images, cells, d) -> (targets of all images, d)."""
    found = [target_corners(shape, grid) for shape in post.shapes]
    cells = [len(shape.views) * grid[0] * grid[1] for shape in post.shapes]
    index = stacked([cell for cell, _ in found], cells, values.device)
    weight = torch.cat([torch.from_numpy(one) for _, one in found]).to(values.device)
    return _weighted(values.flatten(0, 1), index, weight)


def between(table: Tensor, cell: Any, weight: Any) -> Tensor:
    """table (cells, d) -> (m, d) by `places.corners`."""
    return _weighted(table, torch.from_numpy(cell).to(table.device), torch.from_numpy(weight).to(table.device))


def _weighted(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Sum of four rows of a table by their weights, corner by corner.

    Rows are taken by indexing, whose gradient adds up in a fixed order on a GPU; that of index_select does not where a
    row is taken twice.
    """
    found = table[index[:, 0]] * weight[:, :1]
    for corner in range(1, index.shape[1]):
        found = found + table[index[:, corner]] * weight[:, corner, None]
    return found
