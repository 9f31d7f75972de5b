"""Lost neighbours and the images that took their places: what was swapped, and what chance might have swapped, too."""

import numpy as np

PAIRS = 1024  # pairs of images compared at once
ROUNDING = 1e-12  # by which a computed cosine may be off
TOLERANCE = 2  # standard deviations of chance that a near-tie spans


def swaps(lists, cosines, n, ks):
    """Each neighbour that was lost beside one that took a place, the largest cosine before with the largest.

    Parameters: lists: neighbours before and after, (b, at least max(ks)) integers below n each, of the same b images,
        nearest first; cosines, of these with their image before the connector, in the same order.
    Yields: for each k: row (p,), which image; lost (p,), places in its list before; came (p,), places in that after. As
        many come as go.
    """
    lost_from, taken_by = _places(lists[0], lists[1], n), _places(lists[1], lists[0], n)
    for k in ks:
        row, lost = _chosen(cosines[0][:, :k], lost_from[:, :k] >= k)
        _, came = _chosen(cosines[1][:, :k], taken_by[:, :k] >= k)
        yield row, lost, came


def could_swap(s, t, allowed):
    """(p,) bool: whether two cosines s and t, the lost one first, differ by no more than this."""
    return s - t <= allowed + ROUNDING


def difference_noise(s, t, r, width):
    """Standard deviation of the difference of two cosines s = cos(q, a) and t = cos(q, b) after a random projection.

    They share q, and a and b resemble each other, so that much of what a projection does to one it does to the other.
    Parameters: s, t and r = cos(a, b), arrays of one shape; width, dimensions of the Gaussian projection.
    Returns: float64 of that shape, to first order in 1 / width; 0 where a and b have one direction.
    Source: variance and covariance of two sample correlations with a variable in common, Pearson and Filon 1898.
    """
    s, t, r = (np.asarray(value, dtype=np.float64) for value in (s, t, r))
    covariance = r * (1 - s**2 - t**2) - s * t * (1 - s**2 - t**2 - r**2) / 2
    variance = (1 - s**2) ** 2 + (1 - t**2) ** 2 - 2 * covariance
    return np.sqrt(variance.clip(0) / width)  # rounding may leave it below 0


def pair_cosines(units, first, second):
    """(p,) cosines of pairs of rows of units (n, d), some at a time."""
    starts = range(PAIRS, len(first), PAIRS)
    pairs = zip(np.split(first, starts), np.split(second, starts), strict=True)
    return np.concatenate([np.einsum("ij,ij->i", units[a], units[b]) for a, b in pairs])


def _places(items, lists, n):
    """(b, k): the place of each item in its row's list, or the list's length where it is not in it."""
    table = np.full((len(lists), n), lists.shape[1], dtype=np.int32)
    np.put_along_axis(table, lists, np.arange(lists.shape[1], dtype=np.int32)[None], axis=1)
    return np.take_along_axis(table, items, axis=1)


def _chosen(values, chosen):
    """Row and column of each row's chosen values, row by row, largest first."""
    order = np.argsort(np.where(chosen, -values, np.inf), axis=1, kind="stable")
    row, place = np.nonzero(np.arange(chosen.shape[1]) < chosen.sum(1)[:, None])
    return row, order[row, place]
