"""The linear decoders where images differ in layout: mean, position_mean and ridge, in closed form.

Ridge is one linear map of every token that has a place to the patches of its block, wherever the token lies. Where
tokens have no place, it is one linear map of the mean token of a view to the cells of the reference grid: it is fitted
to the view's patches as they are resampled to the grid, and a patch is predicted between the cells around its centre.
For views of as many patches as the grid has cells that is least squares on the patches themselves; for others the
regulariser is the best for the resampled patches, and the held-out error is that of the patches, from one more look at
the held-out images.
"""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from lossmap.errors import LossmapError
from lossmap.reconstruct.linear import NormalEquations, solved
from lossmap.reconstruct.pairs import Pairs
from lossmap.reconstruct.places import places, resampling, target_cells
from lossmap.reconstruct.ragged import Ragged, Sizes, stacked
from lossmap.reconstruct.ragged_networks import OfRagged, by_view, from_cells, placed_rows, to_targets
from lossmap.reconstruct.specs import LINEAR
from lossmap.store.layouts import KINDS


def build_ragged_linear(architecture: dict, sizes: Sizes) -> nn.Module:
    """A linear decoder before its fit. Raises: LossmapError if the kind is unknown."""
    kind = architecture.get("kind")
    if kind not in LINEAR:
        raise LossmapError(f"reconstructor: kind is {kind!r}. Linear ones are {', '.join(LINEAR)}.")
    return {"mean": RaggedMean, "position_mean": RaggedPositionMean, "ridge": RaggedRidge}[kind](sizes)


class RaggedMean(OfRagged):
    """Predicts the mean of the training set, which is 0 in standardised embeddings."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.features = sizes.features

    def forward(self, post: Ragged) -> Ragged:
        targets = sum(len(places(shape).targets) for shape in post.shapes)
        return post.targets(post.rows.new_zeros(targets, self.features))


class RaggedPositionMean(OfRagged):
    """Predicts the mean over the training images of the patches whose centre falls in the same cell of the reference
    grid, by kind of view; of a cell without any, the mean of its kind of view."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes = sizes
        shape = len(KINDS) * sizes.reference[0] * sizes.reference[1], sizes.features
        self.mean = nn.Parameter(torch.zeros(shape), requires_grad=False)

    def forward(self, post: Ragged) -> Ragged:
        return post.targets(self.mean[_cells(post, self.sizes)])


class RaggedRidge(OfRagged):
    """A linear map with intercept, see the top of this file."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes = sizes
        cells = sizes.patches_per_token or sizes.reference[0] * sizes.reference[1]
        self.weight = nn.Parameter(torch.zeros(sizes.features_out, cells * sizes.features), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(cells * sizes.features), requires_grad=False)

    def forward(self, post: Ragged) -> Ragged:
        self.sizes.check(post.shapes)
        predicted = ragged_inputs(post, self.sizes) @ self.weight + self.bias
        if self.sizes.patches_per_token is not None:
            return to_targets(post, predicted, self.sizes.features)
        cells = predicted.unflatten(1, (-1, self.sizes.features))
        return post.targets(from_cells(cells, post, self.sizes.reference))


def ragged_inputs(post: Ragged, sizes: Sizes) -> Tensor:
    """(rows, D): the tokens that have a place, or the mean token of each view."""
    return by_view(post, sizes).mean(1) if sizes.patches_per_token is None else placed_rows(post)


def ragged_outputs(pre: Ragged, sizes: Sizes) -> Tensor:
    """(rows, outputs) of targets: the patches of each token's block, or a view's, resampled to the reference grid."""
    if sizes.patches_per_token is not None:
        orders = [places(shape).order for shape in pre.shapes]
        order = stacked(orders, pre.counts, pre.device)
        blocks = torch.empty_like(pre.rows)
        blocks[order] = pre.rows
        return blocks.view(-1, sizes.patches_per_token * sizes.features)
    found = []
    for start, shape in zip(pre.starts, pre.shapes, strict=True):
        for view in shape.views:
            values = pre.rows[start : start + view.rows * view.cols].view(view.rows, view.cols, -1)
            down, along = (
                torch.from_numpy(resampling(count, cells)).to(values.device)
                for count, cells in zip((view.rows, view.cols), sizes.reference, strict=True)
            )
            found.append(torch.einsum("ar,rcd,bc->abd", down, values, along).flatten())
            start += view.rows * view.cols
    return torch.stack(found)


def input_rows_of(pairs: Pairs, images: np.ndarray) -> int:
    """How many rows ridge has of some images; see `linear.has_enough`."""
    sizes = cast(Sizes, pairs.sizes)
    shapes = [pairs.shape(image) for image in images]
    return sum(len(s.views) if sizes.patches_per_token is None else len(s.blocks.tokens) for s in shapes)


class RaggedSums:
    """Over some images: what all linear decoders are made of."""

    def __init__(self, pairs: Pairs):
        self.sizes = cast(Sizes, pairs.sizes)
        rows, cols = self.sizes.reference
        outputs = self.sizes.features * (self.sizes.patches_per_token or rows * cols)
        self.equations = NormalEquations(self.sizes.features_out, outputs, pairs.device)
        # Sums by cell on the CPU: a GPU adds the rows of a cell up in any order, and two runs would give other bits.
        self.pre = torch.zeros(len(KINDS) * rows * cols, self.sizes.features, dtype=torch.float64)
        self.count, self.squares = torch.zeros(len(self.pre), dtype=torch.float64), 0.0
        self.images = np.empty(0, dtype=np.int64)

    def add(self, pairs: Pairs, images: np.ndarray, progress: Any) -> None:
        for post, pre in pairs.blocks(images):
            self.equations.update(ragged_inputs(post, self.sizes), ragged_outputs(pre, self.sizes))
            index = _cells(pre, self.sizes).cpu()
            self.pre.index_add_(0, index, pre.rows.cpu().double())
            self.count += torch.bincount(index, minlength=len(self.count))
            self.squares += float(pre.rows.square().sum(dtype=torch.float64))
            progress.update(len(pre))
        self.images = np.concatenate([self.images, images])

    def position_mean(self) -> Tensor:
        """(kinds * cells, D') float64; see `RaggedPositionMean`."""
        count = self.count.unflatten(0, (len(KINDS), -1))
        sums = self.pre.unflatten(0, (len(KINDS), -1))
        of_kind = sums.sum(1) / count.sum(1).clamp(min=1)[:, None]
        means = sums / count.clamp(min=1)[..., None]
        return torch.where(count[..., None] > 0, means, of_kind[:, None]).flatten(0, 1)

    def error_of(self, predicted: Tensor) -> float:
        """Mean squared error of predicting (kinds * cells, D') for each of these images."""
        about = (self.count @ predicted.square()).sum() - 2 * (predicted * self.pre).sum()
        return (self.squares + float(about)) / float(self.count.sum() * self.sizes.features)


def fit_ragged(train: RaggedSums, held_out: RaggedSums, pairs: Pairs) -> Iterator[tuple[nn.Module, dict]]:
    """The linear decoders of `linear.fit_linear_decoders` from sums over training and held-out images."""
    sizes = train.sizes
    for kind, weights, told in solved(train, held_out, train.position_mean()):
        architecture = {"kind": kind, **sizes.plain(), **told}
        module = build_ragged_linear({"kind": kind}, sizes)
        module.load_state_dict(weights, assign=True)
        if kind == "ridge" and sizes.patches_per_token is None:
            architecture["held_out_error"] = _error(module, pairs, held_out.images)
        yield module.eval(), architecture


def _error(module: nn.Module, pairs: Pairs, images: np.ndarray) -> float:
    squares, entries = 0.0, 0
    with torch.inference_mode():
        for post, pre in pairs.blocks(images):
            squares += float((module(post).rows - pre.rows).square().sum(dtype=torch.float64))
            entries += pre.rows.numel()
    return squares / entries


def _cells(values: Ragged, sizes: Sizes) -> Tensor:
    """Of all targets of some images, the cells of the reference grid that they lie in, by kind of view."""
    found = [target_cells(shape, sizes.reference) for shape in values.shapes]
    return torch.from_numpy(np.concatenate(found)).to(values.device)
