"""The ladder's linear decoders, in closed form from one pass over the training images: mean, position_mean, ridge."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from lossmap.errors import LossmapError
from lossmap.measures.moments import ROWS_AT_ONCE, RunningCovariance
from lossmap.reconstruct.pairs import Pairs
from lossmap.reconstruct.specs import LINEAR
from lossmap.reconstruct.split import Split

# Times the mean of the diagonal of X^T X: from the mean, in effect, to least squares as far as float32 products carry.
REGULARISERS = 10.0 ** np.arange(4, -7.25, -0.25)
COLUMNS_AT_ONCE = 2**14
# Rows for each input. Of fewer, least squares errs by over a tenth more on new rows than on its own: (1+1/20)/(1-1/20).
ENOUGH_ROWS = 20


class Mean(nn.Module):
    """Predicts the mean of the training set, which is 0 in standardised embeddings."""

    def __init__(self, pre_shape):
        super().__init__()
        self.pre_shape = tuple(pre_shape)

    def forward(self, post):
        return post.new_zeros(len(post), *self.pre_shape)


class PositionMean(nn.Module):
    """Predicts the mean of each patch position over the training images."""

    def __init__(self, pre_shape):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(*pre_shape), requires_grad=False)

    def forward(self, post):
        return self.mean.expand(len(post), -1, -1)


class Ridge(nn.Module):
    """A linear map with intercept from each token to the patches of its block, the same for all blocks.

    Where tokens have no place (blocks is None), from the mean of an image's tokens to all its patches at once.
    """

    def __init__(self, pre_shape, post_shape, blocks=None):
        super().__init__()
        patches, (tokens, width) = pre_shape[0], post_shape
        self.pre_shape, order = tuple(pre_shape), None
        if blocks is not None:
            blocks = torch.as_tensor(blocks, device="cpu")
            order = blocks.flatten().argsort()  # where raster patch p lies among the blocks' patches
            if blocks.flatten()[order].tolist() != list(range(patches)) or len(blocks) > tokens:
                raise LossmapError(
                    f"ridge: blocks of shape {tuple(blocks.shape)} don't give each of {patches} patches to one of "
                    f"{tokens} tokens. They come from the connector; for tokens without a place leave them out."
                )
        self.register_buffer("blocks", blocks, persistent=False)
        self.register_buffer("order", order, persistent=False)
        outputs = outputs_of(pre_shape, blocks)
        self.weight = nn.Parameter(torch.zeros(width, outputs), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(outputs), requires_grad=False)

    def forward(self, post):
        predicted = (input_rows(post, self.blocks) @ self.weight + self.bias).view(len(post), *self.pre_shape)
        return predicted if self.order is None else predicted.index_select(1, self.order)


def input_rows(post, blocks):
    """post (B, tokens, D) -> (rows, D): the tokens that stand for blocks, or the mean token of each image."""
    return post.mean(1) if blocks is None else post[:, : len(blocks)].flatten(0, 1)


def has_enough(images, post_shape, blocks):
    """Whether so many images give ridge enough rows that it learns next to nothing by heart."""
    return images * (1 if blocks is None else len(blocks)) >= ENOUGH_ROWS * post_shape[1]


def output_rows(pre, blocks):
    """pre (B, M, D') -> (rows, outputs): the patches of a block, or of an image."""
    return pre.flatten(1) if blocks is None else pre[:, blocks].flatten(2).flatten(0, 1)


def outputs_of(pre_shape, blocks):
    """How many numbers `output_rows` puts in a row."""
    return pre_shape[1] * (pre_shape[0] if blocks is None else blocks.shape[1])


def build_linear(architecture: dict, pre_shape, post_shape, blocks=None) -> nn.Module:
    """A linear decoder before its fit.

    Parameters: architecture, "kind": mean, position_mean or ridge; other entries are not looked at. pre_shape (patches,
        features), post_shape (tokens, width), blocks: as for `Ridge`.
    Raises: LossmapError if the kind is unknown, or blocks don't hold each patch once.
    """
    kind = architecture.get("kind")
    if kind not in LINEAR:
        raise LossmapError(f"reconstructor: kind is {kind!r}. Linear ones are {', '.join(LINEAR)}.")
    if kind == "ridge":
        return Ridge(pre_shape, post_shape, blocks)
    return {"mean": Mean, "position_mean": PositionMean}[kind](pre_shape)


class NormalEquations:
    """What ridge regression needs to know of rows x (N, inputs) and y (N, outputs): sums and products, in float64."""

    def __init__(self, inputs: int, outputs: int, device="cpu"):
        self.inputs = RunningCovariance(inputs, device)
        self.sum = torch.zeros(outputs, dtype=torch.float64, device=device)
        self.products = torch.zeros(inputs, outputs, dtype=torch.float64, device=device)
        self.squares = torch.zeros((), dtype=torch.float64, device=device)

    def update(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Add rows, float32 or float64. Raises ValueError if a row is not finite."""
        self.inputs.update(x)
        for a, b in zip(x.split(ROWS_AT_ONCE), y.split(ROWS_AT_ONCE), strict=True):
            self.products += a.T @ b
            self.squares += torch.linalg.vector_norm(b, dim=1).double().square().sum()
            self.sum += b.sum(0)

    @property
    def count(self) -> int:
        return self.inputs.count

    def products_about(self, columns: slice, x_centre: torch.Tensor, y_centre: torch.Tensor) -> torch.Tensor:
        """Sum over rows of (x - x_centre) (y - y_centre)^T for some columns of y."""
        x_sum, y_sum, y_centre = self.inputs.sum, self.sum[columns], y_centre[columns]
        return (
            self.products[:, columns]
            - torch.outer(x_sum, y_centre)
            - torch.outer(x_centre, y_sum - self.count * y_centre)
        )

    def squares_about(self, centre: torch.Tensor) -> torch.Tensor:
        """Sum over rows of |y - centre|^2."""
        return self.squares - 2 * centre @ self.sum + self.count * centre @ centre


class RidgeFit(NamedTuple):
    """y is predicted as x @ weight + bias. error: mean square over held-out rows and outputs."""

    weight: torch.Tensor  # (inputs, outputs) float32
    bias: torch.Tensor  # (outputs,) float32
    regulariser: float  # added to the diagonal of the centred X^T X
    error: float


def fit_ridge(train: NormalEquations, held_out: NormalEquations) -> RidgeFit:
    """Ridge regression with intercept; of `REGULARISERS`, the one with the least squared error on the held-out rows.

    X^T X = V diag(e) V^T turns the weights for a regulariser l into V diag(1 / (e + l)) V^T X^T Y, and their held-out
    error into a quadratic form of 1 / (e + l): one decomposition serves all, and no row is seen again.
    Raises: ValueError if train or held_out has no rows.
    """
    for name, rows in (("train", train), ("held_out", held_out)):
        if rows.count == 0:
            raise ValueError(f"{name} has no rows; wanted at least one")
    x_mean, y_mean = train.inputs.mean, train.sum / train.count
    values, vectors = torch.linalg.eigh(train.inputs.about(x_mean))
    values = values.clamp(min=0)

    def turned(equations, columns):
        """V^T X^T Y for some outputs."""
        return vectors.T @ equations.products_about(columns, x_mean, y_mean)

    columns = [slice(i, i + COLUMNS_AT_ONCE) for i in range(0, len(y_mean), COLUMNS_AT_ONCE)]
    linear, quadratic = torch.zeros_like(values), torch.zeros_like(vectors)
    for some in columns:
        fitted = turned(train, some)
        linear += (fitted * turned(held_out, some)).sum(1)
        quadratic += fitted @ fitted.T
    quadratic *= vectors.T @ held_out.inputs.about(x_mean) @ vectors
    regularisers = torch.from_numpy(REGULARISERS).to(values) * (train.count * train.inputs.mean_square or 1.0)
    inverse = 1 / (values + regularisers[:, None])
    errors = held_out.squares_about(y_mean) - 2 * inverse @ linear + ((inverse @ quadratic) * inverse).sum(1)
    best = int(errors.cpu().numpy().argmin())
    solve = vectors * inverse[best]
    weight = torch.cat([(solve @ turned(train, some)).float() for some in columns], 1)
    bias = (y_mean - x_mean @ weight.double()).float()
    # Where next to nothing is left, the rounding of its terms can make the sum negative.
    error = max(float(errors[best]) / (held_out.count * len(y_mean)), 0.0)
    return RidgeFit(weight, bias, float(regularisers[best]), error)


class FittedDecoder(NamedTuple):
    """One decoder, trained on one share of the images.

    architecture: what `build_linear` takes, pre_shape, post_shape and blocks included; held_out_error, the mean squared
    error on the held-out images in standardised embeddings; and for ridge the regulariser chosen on them.
    """

    share: int
    module: nn.Module
    architecture: dict


def fit_linear_decoders(pairs: Pairs, split: Split) -> Iterator[FittedDecoder]:
    """Fit mean, position_mean and ridge on each share, smallest first. Each image is read once.

    Memory: normal equations for the held-out and for the training images, each 8 (D + outputs) D bytes, where outputs
    is D' times the patches of a block, or of an image where tokens have no place.
    """
    # Which build on this module.
    from lossmap.reconstruct.ragged_linear import RaggedSums, fit_ragged

    sums: Any = RaggedSums if pairs.ragged else _Sums
    fit: Any = fit_ragged if pairs.ragged else _fit
    held_out, train = sums(pairs), sums(pairs)
    shares, seen = sorted(split.train), np.empty(0, dtype=np.int64)
    images = len(split.held_out) + len(split.train[shares[-1]])
    with tqdm(total=images, unit="image", desc="linear decoders") as progress:
        held_out.add(pairs, split.held_out, progress)
        for share in shares:
            train.add(pairs, np.setdiff1d(split.train[share], seen), progress)
            seen = split.train[share]
            for module, told in fit(train, held_out, pairs):
                yield FittedDecoder(share, module, told)


class _Sums:
    """Over some images: what all linear decoders are made of."""

    def __init__(self, pairs):
        self.blocks = pairs.connector.blocks
        outputs = outputs_of(pairs.pre_shape, self.blocks)
        self.equations = NormalEquations(pairs.post_shape[1], outputs, pairs.device)
        self.pre = torch.zeros(*pairs.pre_shape, dtype=torch.float64, device=pairs.device)
        self.images = 0

    def add(self, pairs, images, progress):
        for post, pre in pairs.blocks(images):
            self.equations.update(input_rows(post, self.blocks), output_rows(pre, self.blocks))
            self.pre += pre.sum(0)
            self.images += len(pre)
            progress.update(len(pre))

    def error_of(self, predicted):
        """Mean squared error of predicting (M, D') for each of these images."""
        squares = self.equations.squares - 2 * (predicted * self.pre).sum() + self.images * predicted.square().sum()
        return float(squares) / (self.images * predicted.numel())


def solved(train: Any, held_out: Any, position_mean: torch.Tensor) -> Iterator[tuple[str, dict, dict]]:
    """Each linear decoder: its kind, its weights, and what its architecture says of the fit.

    Parameters: train and held_out, sums over images, with equations and error_of; position_mean, of the training
        images.
    """
    fit = fit_ridge(train.equations, held_out.equations)
    yield "mean", {}, {"held_out_error": held_out.error_of(torch.zeros_like(position_mean))}
    told = {"held_out_error": held_out.error_of(position_mean)}
    yield "position_mean", {"mean": position_mean.float()}, told
    told = {"held_out_error": fit.error, "regulariser": fit.regulariser}
    yield "ridge", {"weight": fit.weight, "bias": fit.bias}, told


def _fit(train, held_out, pairs):
    blocks = None if train.blocks is None else train.blocks.tolist()
    shapes = {"pre_shape": list(pairs.pre_shape), "post_shape": list(pairs.post_shape), "blocks": blocks}
    for kind, weights, told in solved(train, held_out, train.pre / train.images):
        architecture = {"kind": kind, **shapes, **told}
        module = build_linear(architecture, **shapes)
        module.load_state_dict(weights, assign=True)
        yield module.eval(), architecture
