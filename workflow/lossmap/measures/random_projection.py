"""How many dimensions a random projection would need to keep the neighbours, and whether it does keep them."""

from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from lossmap.measures.checks import check_k
from lossmap.measures.neighbours import smallest
from lossmap.measures.statistics import check_resampling, interval_tails

DRAWS, DRAWN = 8, 256  # random projections that are averaged, at most, and their dimensions together, or so


class Curve(NamedTuple):
    """A value for each k with its interval; (k,) float64. A dimension of inf: no finite one is enough."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def dimension_needed(n, distortion):
    """Dimension m that keeps all squared distances of n items within a factor 1 -+ distortion, for a random projection.

    m = 4 ln n / (e^2 / 2 - e^3 / 3), rounded up: then a pair fails with probability at most 2 / n^2.
    Parameters: n >= 2. distortion e, number or array, < 1; 0 and below need infinitely many.
    Returns: float64 of the same shape, whole numbers or inf.
    Raises: ValueError if n < 2, or a distortion is not below 1.
    Source: Dasgupta and Gupta, An elementary proof of a theorem of Johnson and Lindenstrauss, 2003, theorem 2.1.
    """
    e = np.asarray(distortion, dtype=np.float64)
    if n < 2:
        raise ValueError(f"n is {n}; wanted at least 2 items")
    if not (e < 1).all():
        raise ValueError(f"distortion is {e.max()}; wanted less than 1")
    with np.errstate(divide="ignore"):
        return np.where(e > 0, np.ceil(4 * np.log(n) / (e**2 / 2 - e**3 / 3)), np.inf)[()]


def distance_margin(inside, outside):
    """Distortion of squared distances that leaves a neighbour nearer than a stranger: (D - d) / (D + d).

    d = 2 - 2 inside and D = 2 - 2 outside are their squared distances as unit vectors; below this distortion
    (1 + e) d < (1 - e) D. Parameters: cosines, inside >= outside, same shape. Returns: float64 in [0, 1]; 0 for ties.
    """
    inside, outside = np.asarray(inside, dtype=np.float64), np.asarray(outside, dtype=np.float64)
    apart, sum_ = inside - outside, 2 - inside - outside
    return np.divide(apart, sum_, out=np.zeros_like(apart), where=sum_ > 1e-12)


def quantile_curve(margins, quantile, confidence=0.95):
    """A quantile over images of each column, with the bootstrap interval over images.

    A quantile of a resample is one of the values themselves; which, follows a binomial law, so the interval is that of
    infinitely many resamples, without drawing any.
    Parameters: margins (n, k), finite. quantile in (0, 1): the value that this share of the images does not exceed.
    Returns: Curve.
    Raises: ValueError if the quantile is out of range.
    Source: Efron, Bootstrap methods: another look at the jackknife, 1979, section 3.
    """
    check_resampling(1, confidence)
    if not 0 < quantile < 1:
        raise ValueError(f"quantile is {quantile}; wanted a number between 0 and 1")
    ordered = np.sort(margins, axis=0)
    n = len(ordered)
    place = int(np.ceil(quantile * n)) - 1
    # The resample's quantile is at most the r-th value if at least place + 1 of n draws are among the first r.
    reached = stats.binom.sf(place, n, np.arange(1, n + 1) / n)
    low, high = (int(np.searchsorted(reached, tail).clip(0, n - 1)) for tail in interval_tails(confidence))
    return Curve(ordered[place], ordered[low], ordered[high])


def dimension_curve(nearest, quantile, confidence=0.95):
    """Dimension that keeps all k neighbours of the images whose margin is clear enough, for each k.

    The smallest margin of all images is that of a near-tie and would say nothing but that ties exist. So a share
    `quantile` of the images, those with the smallest margins, is given up; each of the others keeps all its k
    neighbours with probability at least 1 - 2 / n.
    Parameters: nearest (n, K + 1): cosines to the nearest others, largest first.
    Returns: Curve over k = 1..K; inf where the margin is 0.
    """
    nearest = np.asarray(nearest)
    margins = distance_margin(nearest[:, :-1], nearest[:, 1:])
    found = quantile_curve(np.minimum(margins, np.nextafter(1, 0)), quantile, confidence)
    value, low, high = (dimension_needed(len(nearest), part) for part in found)
    return Curve(value, high, low)  # a wide margin needs few dimensions


def sampling_margin(margin, density, n, delta=0.05):
    """Margin that holds for the population that the images were drawn from, with probability 1 - delta.

    The k-th neighbour of a sample stands for a quantile of similarity in the population, and is off by at most
    eta = sqrt(ln(2 n / delta) / (2 n)) / density, for all n images at once.
    Parameters: margin (n, k): inside - outside; density (n, k): of the similarities there, both from Margins. delta in
        (0, 1).
    Returns: margin - 2 eta, not clipped: where it is not positive, no finite dimension is guaranteed.
    Raises: ValueError if delta is out of range.
    Source: Dvoretzky, Kiefer and Wolfowitz 1956 with Massart's constant 1990.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}; wanted a number between 0 and 1")
    with np.errstate(divide="ignore"):
        return margin - 2 * np.sqrt(np.log(2 * n / delta) / (2 * n)) / density


def project(x, m, rng):
    """Random projection to m dimensions, which keeps squared lengths on average.

    Parameters: x (n, d), real. m >= 1. rng: numpy Generator.
    Returns: (n, m) where m <= d, else (n, d): distances among the rows are distributed as those of m Gaussian
        projections. Beyond d they depend on the projection's d x d Gram matrix alone, which follows Wishart's law and
        is drawn as such (Bartlett 1933), so that a million dimensions cost no more than d.
    """
    d = x.shape[1]
    if m <= d:
        return x @ (rng.normal(size=(d, m)) / np.sqrt(m))
    factor = np.tril(rng.normal(size=(d, d)), -1)
    factor[np.diag_indices(d)] = np.sqrt(rng.chisquare(m - np.arange(d)))
    return x @ (factor / np.sqrt(m))


def draws(m):
    """How many random projections to m dimensions to average: few dimensions keep more or less by luck, many do not.

    Of a single projection to 8 dimensions, the share of neighbours kept is off by 0.02, so that the width that keeps as
    much as a connector is off by a tenth. Returns: DRAWS for small m, 1 from DRAWN on.
    """
    return int(np.ceil(np.clip(DRAWN / m, 1, DRAWS)))


def kept_by_projection(x, lists, ks, m, queries, rng):
    """Share of the k neighbours of some images that a random projection keeps, for unit-length embeddings.

    Parameters: x (n, d), rows of length 1. lists (n, at least max(ks)): their neighbours by inner product. ks: one
        projection serves all. queries (q,): images to check. m: dimension to project to; inf for none. rng: numpy
        Generator.
    Returns: (q, len(ks)) float64 in [0, 1], multiples of 1 / k.
    Raises: ValueError if a k is out of range.
    """
    for k in ks:
        check_k(k, len(x))
    if np.isinf(m):
        return np.ones((len(queries), len(ks)))
    projected = torch.from_numpy(project(x, int(m), rng))
    scores = torch.addmm(projected.square().sum(1) / 2, projected[queries], projected.T, alpha=-1)
    scores[torch.arange(len(queries)), torch.as_tensor(queries)] = torch.inf
    found = smallest(scores, max(ks))[1].numpy()
    same = found[:, :, None] == np.asarray(lists)[queries][:, None, : max(ks)]
    return np.stack([same[:, :k, :k].any(2).mean(1) for k in ks], axis=1)
