"""Other measures of how alike two sets of embeddings of the same images are, for readers who think in them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lossmap.measures.checks import check_k, checked_matrix
from lossmap.measures.ranking import Ranking
from lossmap.measures.resampling import percentile_interval, resampled_means
from lossmap.measures.result import Embeddings, Measured, sides
from lossmap.measures.statistics import MeanInterval

BLOCK = 256  # rows of cosines held at once
ROUNDING = 1e-12  # by which a computed cosine may be off


def cka(
    before: Embeddings,
    after: ArrayLike | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Measured:
    """Debiased linear centred kernel alignment, with bootstrap interval over images.

    Parameters: before and after, see `sides`: a Dataset of embeddings, or (n, d1) and (n, d2), real, n >= 4. resamples,
        confidence and seed: of the interval.
    Returns: Measured; 1 = the same up to rotation, shift and scale; chance 0, on average.
    Raises and source: as `debiased_cka`.
    """
    one, other = sides(before, after)
    found = debiased_cka(one, other, resamples, confidence, seed)
    return Measured(*found, chance=0.0, n=len(one))


def debiased_cka(
    before: ArrayLike, after: ArrayLike, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> MeanInterval:
    """Debiased linear centred kernel alignment, with bootstrap interval over images.

    The three unbiased HSIC estimates are sums over pairs of images; they are computed from feature products in n x d
    memory. For the interval each image stands for its share of those sums, counted twice because it is in a pair
    twice, which is the bootstrap to first order (Hajek's projection of a U-statistic).

    Parameters: before (n, d1) and after (n, d2), real, n >= 4; row i is the same image in both.
    Returns: MeanInterval; 1 = the same up to rotation, shift and scale; 0 on average for unrelated embeddings, also
        where there are more features than images; it may be negative. nan where a side has no variance.
    Raises: ValueError if the row counts differ, n < 4, or a value is not finite (the message names the first such row).
    Source: Kornblith et al. 2019, arXiv:1905.00414; unbiased HSIC of Song et al. 2012, as Murphy et al. 2024,
        arXiv:2405.01012.
    """
    before, after = _checked_pair(before, after, least=4)
    sides = [_centred(x) for x in (before, after)]
    parts = [_hsic_by_image(*pair) for pair in ((sides[0], sides[1]), (sides[0], sides[0]), (sides[1], sides[1]))]
    values = np.stack(parts, axis=1)
    means = values.mean(axis=0)
    resampled = means + 2 * (resampled_means(values, resamples, seed) - means)
    return percentile_interval(_alignment(means[None])[0], _alignment(resampled), confidence)


def trustworthiness(ranks: NDArray[Any], n: int) -> NDArray[np.float64]:
    """How few strangers are among each item's k neighbours: of the neighbours after, how near they were before.

    With the ranks after the connector of the neighbours before it, the same number is the continuity.
    Parameters: ranks (n, k): which neighbour before, 1 = the nearest, each of the k neighbours after was
        (Margins.ranks_before). n: how many items there are; k < n / 2.
    Returns: (n,) float64; their mean is the trustworthiness: 1 = every neighbour after was one before; chance is
        chance_trustworthiness(n, k); an item all of whose new neighbours were the farthest scores 0.
    Raises: ValueError if k is not below n / 2, where the measure is not defined.
    Source: Venna and Kaski 2001; sklearn.manifold.trustworthiness.
    """
    k = _checked_k(ranks, n)
    return 1 - _cost(n, k) * np.maximum(ranks - k, 0).sum(axis=1)


def trustworthiness_with_ties(unit: NDArray[Any], ranking: Ranking, k: int) -> NDArray[np.float64]:
    """Trustworthiness in expectation over random orders of what ties, on either side.

    Parameters: unit (n, d): the embeddings among which ranks count, rows of length 1. ranking: of the other side.
    Returns and raises as trustworthiness.
    """
    n = len(unit)
    _checked_k(np.empty((n, k)), n)
    values = np.empty(n)
    for start in range(0, n, BLOCK):
        rows = slice(start, min(start + BLOCK, n))
        cosines = unit[rows] @ unit.T
        cosines[np.arange(rows.stop - start), np.arange(start, rows.stop)] = -np.inf
        ordered = np.sort(cosines, axis=1)
        entries = ranking.shares(k, rows).tocoo()
        excess = np.empty(len(entries.data))
        for row in range(rows.stop - start):
            mine = entries.row == row
            own = cosines[row, entries.col[mine]]
            first = n - np.searchsorted(ordered[row], own + ROUNDING) + 1  # the ranks that its tie shares
            last = n - np.searchsorted(ordered[row], own - ROUNDING)
            beyond = np.maximum(last - np.maximum(first, k + 1) + 1, 0)
            excess[mine] = beyond * (np.maximum(first, k + 1) + last - 2 * k) / 2 / (last - first + 1)
        values[rows] = 1 - _cost(n, k) * np.bincount(entries.row, entries.data * excess, rows.stop - start)
    return values


def chance_trustworthiness(n: int, k: int) -> float:
    """Mean trustworthiness of neighbours drawn at random. ValueError if k is not below n / 2."""
    _checked_k(np.empty((n, k)), n)
    return 1 - (n - 1 - k) * (n - k) / ((n - 1) * (2 * n - 3 * k - 1))


def order_agreement(ranks: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Whether an item's k neighbours keep their order: Kendall's tau and Spearman's rho of each item.

    Parameters: ranks (n, k), k >= 2: column j is the rank after of the neighbour that was j-th before
        (Margins.ranks_after). Equal ranks keep the order that they had before.
    Returns: tau (n,) and rho (n,), float64 in [-1, 1]: 1 = same order, 0 = chance, -1 = reversed.
    Raises: ValueError if k < 2.
    Source: Kendall 1938; Spearman 1904; scipy.stats.kendalltau, spearmanr.
    """
    ranks = np.asarray(ranks)
    k = ranks.shape[1]
    if k < 2:
        raise ValueError(f"k is {k}; wanted at least 2, for one neighbour has no order")
    order = ranks.argsort(axis=1, kind="stable")
    places = order.argsort(axis=1)
    rho = 1 - 6 * ((places - np.arange(k)) ** 2).sum(axis=1) / (k * (k**2 - 1))
    swapped = np.zeros(len(ranks), dtype=np.int64)
    for j in range(1, k):
        swapped += (places[:, :j] > places[:, j : j + 1]).sum(axis=1)
    return 1 - 4 * swapped / (k * (k - 1)), rho


def _centred(x: NDArray[np.float64]) -> torch.Tensor:
    """Centred and scaled, which changes no alignment, to float32: exact to some 1e-6 and twice as fast."""
    x = x - x.mean(axis=0)
    return torch.from_numpy((x / (np.sqrt((x**2).sum(axis=1).mean()) or 1)).astype(np.float32))


def _hsic_by_image(x: torch.Tensor, y: torch.Tensor) -> NDArray[np.float32]:
    """(n,) contributions of the images to the unbiased HSIC of centred x and y; their mean is the estimate."""
    n = len(x)
    own_x, own_y = (x * x).sum(1), (y * y).sum(1)
    # Row sums of the kernels without their diagonals. Centred columns sum to 0, so only the diagonal is left.
    row_x, row_y = x @ x.sum(0) - own_x, y @ y.sum(0) - own_y
    products = ((x @ (x.T @ y)) * y).sum(1) - own_x * own_y
    sums = row_x.sum() * row_y + row_y.sum() * row_x
    parts = products + sums / (2 * (n - 1) * (n - 2))
    crossed = row_x * row_y
    # The product of the kernels, summed over its entries, is a sum over the image in the middle of two pairs.
    return ((parts - 2 / (n - 2) * crossed) / (n - 3)).numpy()


def _alignment(hsic: NDArray[np.float64]) -> NDArray[np.float64]:
    """(b, 3): HSIC of both, of one with itself, of the other with itself -> (b,) CKA, nan where a side is constant."""
    both, own_x, own_y = hsic.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((own_x > 0) & (own_y > 0), both / np.sqrt(own_x * own_y), np.nan)


def _cost(n: int, k: int) -> float:
    """What each rank beyond k costs, so that the farthest k cost 1."""
    return 2 / (k * (2 * n - 3 * k - 1))


def _checked_k(ranks: NDArray[Any], n: int) -> int:
    k = ranks.shape[1]
    check_k(k, n)
    if 2 * k >= n:
        raise ValueError(f"k is {k}; trustworthiness wants less than half of the {n} items")
    return k


def _checked_pair(before: ArrayLike, after: ArrayLike, least: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    before, after = checked_matrix(before, "before"), checked_matrix(after, "after")
    if len(before) != len(after):
        raise ValueError(f"before has {len(before)} rows and after {len(after)}; row i must be the same item in both")
    if len(before) < least:
        raise ValueError(f"before has {len(before)} rows; wanted at least {least}")
    return before.astype(np.float64), after.astype(np.float64)
