"""Connectors: the model's own, and controls of known loss that stand in its place.

A control takes the standardised pre of a model and gives as many tokens as the model's connector (pooling apart).
Those made from pre cut the patch grid into equal blocks, one for each token: a token knows its own block and no other.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from lossmap.errors import LossmapError
from lossmap.measures.seeds import seed_for
from lossmap.reconstruct.grids import OF_STORE, components_per_patch, sides_of_blocks
from lossmap.reconstruct.statistics import Statistics


class Connector(nn.Module):
    """From the embeddings of a store to the pairs that a reconstructor learns from.

    Attributes: post_shape (tokens, features). blocks (tokens, patches per token): the raster patches that each token
    stands for, every patch once, or None where tokens have no place. lossless: whether pre can be computed from post.
    known_fvu: the fraction of variance that the best linear reconstruction of each block leaves, where theory knows it,
    or None. reads_post: whether post of the store is used.

    Called with images (B,), their numbers; pre (B, M, D'), standardised; post and partner_post (B, M_C, D), as stored,
    of each image and of its partner, each None if not used. Returns target pre (B, M, D') and post (B, *post_shape).
    """

    lossless = False
    known_fvu: float | None = None
    reads_post = False
    blocks: torch.Tensor | None

    def __init__(self, post_shape: tuple[int, int], blocks: torch.Tensor | None):
        super().__init__()
        self.post_shape = tuple(post_shape)
        self.register_buffer("blocks", blocks, persistent=False)

    def partner(self, n: int) -> np.ndarray | None:
        """(n,) the image whose post is taken for each of n images, or None where it is the image's own."""
        return None


class Own(Connector):
    """The model's connector."""

    reads_post = True

    def forward(self, images, pre, post, partner_post):
        return pre, post


class OtherImage(Connector):
    """Post of another image, half a data set away: what the position of a patch tells, and nothing else."""

    def partner(self, n):
        if n < 2:
            raise LossmapError(f"The control other_image needs at least 2 images; this store has {n}. Leave it out.")
        return (np.arange(n) + n // 2) % n

    def forward(self, images, pre, post, partner_post):
        return pre, partner_post


class OtherImageAndPatch(OtherImage):
    """Post of another image, and the target's patches shuffled within each image: it tells nothing."""

    known_fvu = 1.0

    def __init__(self, post_shape, blocks, seed):
        super().__init__(post_shape, blocks)
        self.seed = seed

    def forward(self, images, pre, post, partner_post):
        orders = [np.random.default_rng([self.seed, int(image)]).permutation(pre.shape[1]) for image in images]
        order = torch.from_numpy(np.stack(orders)).to(pre.device)
        return pre.gather(1, order[:, :, None].expand_as(pre)), partner_post


class OfBlocks(Connector, ABC):
    """A control made from pre: each token is one map, the same for all tokens, of the patches of its block."""

    def forward(self, images, pre, post, partner_post):
        return pre, self.map(self.grouped(pre))

    def grouped(self, pre):
        """pre (B, M, D') -> (B, tokens, patches per token * D')."""
        return pre[:, self.blocks].flatten(2)

    @abstractmethod
    def map(self, grouped):
        """grouped, from `grouped` -> post (B, *post_shape)."""


class Identity(OfBlocks):
    """The patches themselves, followed by zeros where the model's tokens are wider."""

    lossless, known_fvu = True, 0.0

    def map(self, grouped):
        return nn.functional.pad(grouped, (0, self.post_shape[1] - grouped.shape[-1]))


class InvertibleMLP(OfBlocks):
    """A random orthonormal map, then `layers` times a leaky ReLU and a random rotation.

    A rotation is undone by its transpose and the leaky ReLU by dividing negative values by its slope, so nothing is
    lost; but no linear map undoes both. With 0 layers it is a rotation.
    """

    lossless = True

    def __init__(self, post_shape, blocks, width, layers, slope, rng):
        super().__init__(post_shape, blocks)
        self.slope = slope
        self.known_fvu = 0.0 if layers == 0 else None
        sizes = [width] + [post_shape[1]] * (layers + 1)
        for i, (columns, rows) in enumerate(pairwise(sizes)):
            self.register_buffer(f"rotation{i}", _orthonormal(rows, columns, rng), persistent=False)

    def map(self, grouped):
        first, *rest = self.rotations()
        values = grouped @ first.T
        for rotation in rest:
            values = nn.functional.leaky_relu(values, self.slope) @ rotation.T
        return values

    def rotations(self):
        """The orthonormal matrices, in the order of their use: (D, width), then (D, D)."""
        return [buffer for name, buffer in self.named_buffers() if name.startswith("rotation")]


class PrincipalComponents(OfBlocks):
    """The first principal components of each block over the training set: `rank` times as many as it has patches.

    A linear map back loses the discarded eigenvalues and nothing else.
    """

    def __init__(self, post_shape, blocks, width, extra):
        super().__init__(post_shape, blocks)
        self.lossless = post_shape[1] == width
        self.register_buffer("basis", extra.get("basis"), persistent=False)
        if self.basis is not None:
            self.known_fvu = float(extra["discarded"])

    def map(self, grouped):
        return grouped @ self.basis

    def fit(self, mean: torch.Tensor, covariance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict]:
        """From mean (w,) and covariance (w, w) of grouped patches, float64.

        Returns: mean and standard deviation of the components (D,), and what is to be kept in `Statistics.extra`:
        basis (w, D), all eigenvalues (w,), largest first, and discarded, their sum beyond D as a part of the mean
        square of a block, so the fraction of variance unexplained.
        """
        values, vectors = torch.linalg.eigh(covariance)
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        # The sign of an eigenvector is anybody's; let its largest entry be positive.
        vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        kept, basis = values[: self.post_shape[1]], vectors[:, : self.post_shape[1]]
        discarded = (values.sum() - kept.sum()).clamp(min=0) / (values.sum() + mean.square().sum())
        # Below this a component is but the rounding of its larger siblings in float32.
        std = torch.where(kept > 1e-12 * values[0], kept, 0.0).sqrt()
        extra = {"basis": basis.float(), "eigenvalues": values.float(), "discarded": discarded.float()}
        return (mean @ basis).float(), std.float(), extra


class Pooling(OfBlocks):
    """The mean of each 2x2 patches. Their differences are lost."""

    def map(self, grouped):
        return grouped.unflatten(2, (self.blocks.shape[1], -1)).mean(2)


SETTINGS: dict[str, dict[str, Any]] = {  # of each kind, with defaults
    "own": {},
    "identity": {},
    "rotation": {},
    "invertible_mlp": {"layers": 2, "slope": 0.1},
    "pca": {"rank": None},
    "pooling": {},
    "other_image": {},
    "other_image_and_patch": {},
}


def make_connector(
    spec: dict,
    pre_grid: Sequence[int],
    pre_shape: tuple[int, int],
    post_shape: tuple[int, int],
    seed: int,
    statistics: Statistics | None = None,
    *,
    post_grid: Sequence[int] | None,
) -> Connector:
    """The connector of a model that a spec describes.

    Parameters: spec, {"kind": ..., settings}; pre_grid (rows, columns) and post_grid (None where tokens have no place);
        pre_shape (M, D') and post_shape (M_C, D) of the model. seed: random controls are drawn with it. statistics: of
        this connector; pca can't be called without, for its components come from the training set.
        Settings: invertible_mlp layers (2), slope (0.1); pca rank, components per patch (as many numbers as the model's
        connector gives, at most D').
    Raises: LossmapError if the kind or a setting is unknown or out of range, or the grid can't be cut into blocks.
    """
    kind, settings = _settings(spec)
    rng_seed = seed_for(seed, "connector", kind)
    blocks = _blocks(kind, pre_grid, post_grid, post_shape[0])
    if kind == "other_image_and_patch":
        return OtherImageAndPatch(post_shape, blocks, rng_seed)
    if kind in OF_STORE:
        return {"own": Own, "other_image": OtherImage}[kind](post_shape, blocks)
    features = pre_shape[1]
    if kind == "pooling":
        return Pooling((len(blocks), features), blocks)
    width = blocks.shape[1] * features
    if kind == "pca":
        rank = components_per_patch(settings["rank"], pre_shape, post_shape)
        shape = (len(blocks), rank * blocks.shape[1])
        return PrincipalComponents(shape, blocks, width, statistics.extra if statistics else {})
    shape = (len(blocks), max(width, post_shape[1]))
    if kind == "identity":
        return Identity(shape, blocks)
    layers, slope = (0, 1.0) if kind == "rotation" else (settings["layers"], settings["slope"])
    if layers < 0 or not 0 < slope <= 1:
        raise LossmapError(
            f"Control {kind}: layers is {layers} and slope {slope}; wanted layers >= 0 and slope above 0, at most 1."
        )
    return InvertibleMLP(shape, blocks, width, layers, slope, np.random.default_rng(rng_seed))


def _settings(spec):
    given = dict(spec)
    kind = given.pop("kind", None)
    if kind not in SETTINGS:
        raise LossmapError(f"A connector of kind {kind!r} is not known; wanted one of {', '.join(SETTINGS)}.")
    if unknown := sorted(set(given) - set(SETTINGS[kind])):
        known = ", ".join(SETTINGS[kind]) or "none"
        raise LossmapError(f"Connector of kind {kind}: {', '.join(unknown)} is no setting of it; it has {known}.")
    return kind, SETTINGS[kind] | given


def _blocks(kind, pre_grid, post_grid, tokens):
    """(tokens, patches per token) raster numbers of the patches, both in raster order; None where tokens have no
    place."""
    sides = sides_of_blocks(kind, pre_grid, post_grid, tokens)
    if sides is None:
        return None
    (rows, high), (columns, wide) = sides
    numbers = torch.arange(pre_grid[0] * pre_grid[1]).view(rows, high, columns, wide)
    return numbers.transpose(1, 2).reshape(rows * columns, high * wide)


def _orthonormal(rows, columns, rng):
    """Uniformly random (rows, columns) with orthonormal columns, float32; a rotation where rows = columns."""
    q, r = np.linalg.qr(rng.normal(size=(rows, columns)))
    return torch.from_numpy(q * np.sign(np.diag(r))).float()
