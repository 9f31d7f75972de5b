"""Linear maps from after the connector back to before it: a rotation alone (Procrustes), and any linear map (ridge)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg

from lossmap.measures.checks import checked_matrix
from lossmap.measures.resampling import ratio_interval
from lossmap.measures.result import Embeddings, Measured, sides
from lossmap.measures.statistics import bootstrap_mean

PENALTIES = 10.0 ** np.arange(-8, 3)  # of ridge, as multiples of the source's mean squared singular value
CHANCES = {"rotation": None, "rotation_standardised": "rotation_shuffled", "ridge": "ridge_shuffled"}
Matrix = NDArray[np.float64]
Halves = Sequence[NDArray[np.int64]]  # indices of items
MAPS = ("rotation", "rotation_standardised", "ridge", "rotation_shuffled", "ridge_shuffled")


class Alignment(NamedTuple):
    """Embeddings before the connector, and those after it laid on them. All (n, d) float64, centred; errors (n,)."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]  # after the connector, reduced or padded to d features
    aligned: NDArray[np.float64]  # the same, rotated
    errors: NDArray[np.float64]  # length of aligned less before, in the unit of the embeddings before


@dataclass(frozen=True, eq=False)
class Procrustes:
    """How well one linear map takes embeddings after the connector back to those before it.

    error: length of what a rotation leaves of each item, as the paper measures it, fitted and scored on the same items,
    in the unit of the embeddings before; chance: of items paired at random. unexplained: "rotation",
    "rotation_standardised" and "ridge" -> the share of variance that such a map leaves of items that it was not fitted
    on (see `unexplained_shares`); 0 = none, 1 = no better than the mean. alignment: the embeddings laid on each other.
    """

    error: Measured
    unexplained: dict[str, Measured]
    alignment: Alignment

    def __repr__(self) -> str:
        shares = "; ".join(f"{name} {share}" for name, share in self.unexplained.items())
        return f"Procrustes error {self.error}; unexplained by {shares}"


def procrustes(
    before: Embeddings,
    after: ArrayLike | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    rng: np.random.Generator | None = None,
) -> Procrustes:
    """Rotate embeddings after the connector onto those before it, and see what that and a linear map leave.

    Parameters: before and after, see `sides`: a Dataset of embeddings, or (n, d) and (n, d2), real, n >= 4. resamples,
        confidence and seed: of bootstrap intervals over items. rng: numpy Generator, of halves and of pairs at random;
        by default made of the seed.
    Returns: Procrustes.
    Raises and source: as `align` and `unexplained_shares`.
    """
    one, other = sides(before, after)
    how: dict[str, Any] = {"resamples": resamples, "confidence": confidence, "seed": seed}
    rng = np.random.default_rng(seed) if rng is None else rng
    aligned = align(one, other)
    n, errors = len(aligned.errors), aligned.errors
    error = Measured(*bootstrap_mean(errors, **how), shuffled_error(aligned, rng), n, per_item=errors)
    shares, unexplained = unexplained_shares(one, other, rng), {}
    for name, shuffled in CHANCES.items():
        chance = shares[shuffled][0].sum() / shares[shuffled][1].sum() if shuffled else np.nan
        unexplained[name] = Measured(*ratio_interval(*shares[name], **how), chance, n)
    return Procrustes(error, unexplained, aligned)


def align(before: ArrayLike, after: ArrayLike) -> Alignment:
    """Rotate embeddings after the connector onto those before it, as the paper does.

    Both are centred. Where after has more features than before, its principal components take their place; where it
    has fewer, zeros are appended. The orthogonal map that leaves the least squared error follows from the singular
    value decomposition of their cross-covariance; it is fitted and scored on the same images, without scaling.

    Parameters: before (n, d) and after (n, d2), real; row i is the same image in both.
    Returns: Alignment. Errors are 0 for a connector that rotates, reflects, shifts or pads. They grow with the unit of
        the embeddings, so that models do not compare; unexplained_shares does.
    Raises: ValueError if the row counts differ or a value is not finite (the message names the first such row).
    Source: Li et al. 2025, arXiv:2509.11986, Table 5; scipy.linalg.orthogonal_procrustes (Schoenemann 1966).
    """
    target, source = _checked_pair(before, after)
    target, source = target - target.mean(axis=0), source - source.mean(axis=0)
    source = _to_width(source, source, target.shape[1])[0]
    rotation, _ = linalg.orthogonal_procrustes(source, target)
    aligned = source @ rotation
    return Alignment(target, source, aligned, np.linalg.norm(aligned - target, axis=1))


def shuffled_error(alignment: Alignment, rng: np.random.Generator) -> float:
    """Mean error of the same alignment of images paired at random: what fitting alone comes to."""
    # In float32, which is twice as fast and exact enough for chance.
    shuffled = alignment.after[_derangement(len(alignment.after), rng)].astype(np.float32)
    before = alignment.before.astype(np.float32)
    rotation, _ = linalg.orthogonal_procrustes(shuffled, before)
    return float(np.linalg.norm(shuffled @ rotation - before, axis=1).mean(dtype=np.float64))


def unexplained_shares(
    before: ArrayLike, after: ArrayLike, rng: np.random.Generator
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """What linear maps from after the connector leave unexplained before it, on images that they were not fitted on.

    The images are halved by seed; each half is scored by maps that were fitted on the other, with its means and
    deviations, so that every image is scored once.
    rotation: orthogonal, and one scale (principal components or zeros make the widths equal), of embeddings divided by
    one number, so that a rotation is still a rotation. rotation_standardised: the same of embeddings whose features all
    have deviation 1, so that no feature outweighs another. ridge: any linear map of those, its penalty chosen on the
    fitting half by generalised cross-validation. *_shuffled: the two of standardised embeddings, fitted and scored on
    pairs of different images, which is chance: 1 or a little more.

    Parameters: before (n, d), after (n, d2), real, n >= 4; row i is the same image in both. rng: numpy Generator.
    Returns: dict: name of MAPS -> errors and variances, (n,) float64 each: squared lengths of what is left and
        of what was there, beyond the mean. Sum over sum is the share of variance unexplained: 0 = none, 1 = no
        better than the mean.
    Raises: ValueError as align, if n < 4, or if a half does not vary.
    Source: Schoenemann and Carroll 1970 for the scale; Golub, Heath and Wahba 1979 for the penalty; halves that take
        turns: Stone, Cross-validatory choice and assessment of statistical predictions, 1974.
    """
    before, after = _checked_pair(before, after)
    n = len(before)
    if n < 4:
        raise ValueError(f"before has {n} rows; wanted at least 4, two to fit and two to score")
    order = rng.permutation(n)
    halves = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
    others = [_derangement(len(half), rng) for half in halves]
    found = {name: (np.empty(n), np.empty(n)) for name in MAPS}
    for (fitted, scored), shuffled in ((halves, others), (halves[::-1], others[::-1])):
        for name, parts in _of_halves(before, after, (fitted, scored), shuffled).items():
            for whole, part in zip(found[name], parts, strict=True):
                whole[scored] = part
    return found


def _of_halves(before: Matrix, after: Matrix, halves: Halves, others: Halves) -> dict[str, tuple[Matrix, Matrix]]:
    """Errors and variances of the second half, by maps fitted on the first. others: derangements of the halves."""
    own = [np.arange(len(half)) for half in halves]
    found = {}

    target, source = _standardised(before, halves, False, "before"), _standardised(after, halves, False, "after")
    rotated = _to_width(source[0], source[1], before.shape[1])
    found["rotation"] = _left_over(partial(_rotation, rotated[0]), rotated[1], target, own)

    target, source = _standardised(before, halves, True, "before"), _standardised(after, halves, True, "after")
    rotated, ridge = _to_width(source[0], source[1], before.shape[1]), _Ridge(source[0])
    found["rotation_standardised"] = _left_over(partial(_rotation, rotated[0]), rotated[1], target, own)
    found["rotation_shuffled"] = _left_over(partial(_rotation, rotated[0]), rotated[1], target, others)
    found["ridge"] = _left_over(ridge.map_to, source[1], target, own)
    found["ridge_shuffled"] = _left_over(ridge.map_to, source[1], target, others)
    return found


def first_components(x: Matrix, count: int = 2) -> Matrix:
    """Directions of most variance. x (n, d) centred -> (d, count), orthonormal columns, signs fixed; zeros beyond the
    rank's limit d."""
    components = np.zeros((x.shape[1], count))
    found = _components(x, min(count, x.shape[1]))
    components[:, : found.shape[1]] = found
    return components


class _Ridge:
    """Ridge regression from one source to any target, its decomposition shared."""

    def __init__(self, source: Matrix):
        gram = source.T @ source if source.shape[0] >= source.shape[1] else source @ source.T
        values, vectors = linalg.eigh(gram)
        keep = values > values[-1] * len(values) * np.finfo(values.dtype).eps
        self.squares, self.n = values[keep], len(source)
        singular = np.sqrt(self.squares)
        if source.shape[0] >= source.shape[1]:
            self.right = vectors[:, keep]
            self.left = source @ self.right / singular
        else:
            self.left = vectors[:, keep]
            self.right = source.T @ self.left / singular

    def map_to(self, target: Matrix) -> Matrix:
        """(d2, d): the map from source to target, its penalty chosen by generalised cross-validation."""
        seen = self.left.T @ target
        power, total = _squares(seen), (target**2).sum()
        best, chosen = None, self.squares
        for penalty in PENALTIES * self.squares.mean():
            shrunk = self.squares / (self.squares + penalty)
            error = total - power.sum() + (power * (1 - shrunk) ** 2).sum()
            freedom = max(self.n - 1 - shrunk.sum(), 1e-9)  # the mean took one
            if best is None or error / freedom**2 < best:
                best, chosen = error / freedom**2, shrunk
        return self.right @ ((chosen / np.sqrt(self.squares))[:, None] * seen)


def _rotation(source: Matrix, target: Matrix) -> Matrix:
    """(d, d): the orthogonal map, times one scale, that brings source closest to target.

    Directions in which fewer images than features say nothing are mapped to 0: any rotation of them would fit as well.
    """
    left, singular, right = linalg.svd(source.T @ target)
    seen = singular > singular[0] * len(singular) * np.finfo(singular.dtype).eps
    return (left[:, seen] * (singular.sum() / (source**2).sum())) @ right[seen]


def _left_over(
    fit: Callable[[Matrix], Matrix], source: Matrix, target: Sequence[Matrix], partners: Halves
) -> tuple[Matrix, Matrix]:
    """Squared errors and variances of the scoring half, with the map that was fitted on the other.

    fit: target of the fitting half -> map. source: of the scoring half. target: of both. partners: of both, which
    image's source goes with each image's target.
    """
    fitted = np.empty_like(target[0])
    fitted[partners[0]] = target[0]
    return _squares(source[partners[1]] @ fit(fitted) - target[1]), _squares(target[1])


def _to_width(fitted: Matrix, other: Matrix, width: int) -> tuple[Matrix, Matrix]:
    """Both (n, width): principal components of `fitted` where they are wider, zero padding where they are narrower."""
    own = fitted.shape[1]
    if own > width:
        components = _components(fitted, width)
        return fitted @ components, other @ components
    if own < width:
        more = ((0, 0), (0, width - own))
        return np.pad(fitted, more), np.pad(other, more)
    return fitted, other


def _components(x: Matrix, count: int) -> Matrix:
    """(d, count) orthonormal directions of most variance of centred x, largest first, signs fixed."""
    d = x.shape[1]
    vectors = linalg.eigh(x.T @ x, subset_by_index=(d - count, d - 1))[1][:, ::-1]
    return vectors * np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(count)] < 0, -1, 1)


def _standardised(x: Matrix, halves: Halves, each_feature: bool, name: str) -> list[Matrix]:
    """Both halves, centred and scaled by the first: each feature by its deviation, or all by one number."""
    mean, spread = x[halves[0]].mean(axis=0), x[halves[0]].std(axis=0)
    if not spread.any():
        raise ValueError(f"{name}: all images of the fitting half are alike; there is nothing to align")
    # A feature that is constant where it was fitted keeps its own unit.
    spread = np.where(spread == 0, 1, spread) if each_feature else np.sqrt((spread**2).sum())
    return [(x[half] - mean) / spread for half in halves]


def _derangement(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A permutation that leaves nothing in its place: a random cycle."""
    cycle = rng.permutation(n)
    moved = np.empty(n, dtype=np.int64)
    moved[cycle] = np.roll(cycle, 1)
    return moved


def _squares(x: Matrix) -> Matrix:
    return np.einsum("ij,ij->i", x, x)


def _checked_pair(before: ArrayLike, after: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    before, after = checked_matrix(before, "before"), checked_matrix(after, "after")
    if len(before) != len(after):
        raise ValueError(f"before has {len(before)} rows and after {len(after)}; row i must be the same item in both")
    return before.astype(np.float64), after.astype(np.float64)
