"""Why neighbours change: near-ties that a random projection might swap, or images moved across a clear margin."""

from typing import NamedTuple

import numpy as np
import torch

from lossmap.measures.checks import check_k, checked_matrix
from lossmap.measures.density import lower_density
from lossmap.measures.distortion import unit_rows
from lossmap.measures.near_ties import ROUNDING, TOLERANCE, could_swap, difference_noise, pair_cosines, swaps

BLOCK = 256  # rows of cosines held at once


class Margins(NamedTuple):
    """Neighbours by cosine of n images, for each k of a list: (n, len(k)) float64 where nothing else is said.

    inside, outside: cosine before of the k-th neighbour and of the one after it. Their difference is the margin.
    ties: pairs of a neighbour and a stranger whose cosines lie within 2 epsilon, so that they could have swapped.
    lost: neighbours before that are none after; as many strangers took their places.
    near_ties: of the lost, how many a random projection could as well have swapped with what took their place.
    own_ties: of the lost, how many the connector's own typical change could have.
    closeness: mean cosine before of the neighbours after, from 0, that of a random image, to 1, that of the neighbours
        before. nan where these are no nearer than a random image.
    density: Gaussian kernel density estimate of the image's cosines, the lower of those at inside and outside.
    epsilon (n,): largest change of a cosine of the image, after the best rising line.
    nearest (n, largest k + 1): cosines before, largest first.
    ranks_before, ranks_after (n, largest k) int64: which neighbour before, 1 = the nearest, each neighbour after was;
        which neighbour after each neighbour before is. Equally near images share the lowest rank.
    """

    inside: np.ndarray
    outside: np.ndarray
    ties: np.ndarray
    lost: np.ndarray
    near_ties: np.ndarray
    own_ties: np.ndarray
    closeness: np.ndarray
    density: np.ndarray
    epsilon: np.ndarray
    nearest: np.ndarray
    ranks_before: np.ndarray
    ranks_after: np.ndarray

    def overlap(self, ks):
        """(n, len(k)): share of neighbours preserved, R(x, k)."""
        return 1 - self.lost / np.asarray(ks)

    def bound(self, ks):
        """(n, len(k)): what the overlap cannot be below, 1 - ties / k; below 0 it says nothing.

        A lost neighbour lies within 2 epsilon of every stranger that took a place: its cosine fell by at most epsilon,
        and the stranger's rose by at most epsilon. So lost <= ties.
        """
        return 1 - self.ties / np.asarray(ks)

    def sharper_bound(self, ks):
        """(n, len(k)): 1 - sqrt(ties) / k, for each of the lost makes such a pair with each that took a place."""
        return 1 - np.floor(np.sqrt(self.ties)) / np.asarray(ks)


def neighbour_margins(before, after, lists_before, lists_after, ks, line=(0.0, 1.0), own_change=0.0):
    """How clearly each image's neighbours are set apart, and which kind of neighbour the connector lost.

    A lost neighbour and the image that took its place (both sides in order of cosine before) are a near-tie if their
    cosines before differ by at most two standard deviations of what a random projection to the connector's output width
    makes of that difference (difference_noise). Otherwise the neighbour was moved across a clear margin: not for want
    of room, so by the connector.

    Parameters: before (n, d1) and after (n, width), real; row i is the same image in both. lists_before, lists_after
        (n, at least max(ks)) integers: neighbours by inner product of unit vectors: nearest_neighbours(x, k, "cosine").
        ks, each 1 <= k <= n - 2. line: offset and slope >= 0 of PairChanges.line; it moves no neighbour. own_change:
        the change of a cosine beyond that line which counts as typical for own_ties.
    Returns: Margins.
    Raises: ValueError if shapes do not fit, a k is out of range, or a row is not finite or has length zero (the first
        is named).
    """
    units = [
        torch.from_numpy(unit_rows(checked_matrix(x, name), name)) for x, name in ((before, "before"), (after, "after"))
    ]
    n, width = units[1].shape
    if len(units[0]) != n:
        raise ValueError(f"before has {len(units[0])} rows and after {n}; row i must be the same item in both")
    for k in ks:
        check_k(k, n - 1)
    lists = [
        _checked_list(side, name, n, max(ks))
        for side, name in ((lists_before, "lists_before"), (lists_after, "lists_after"))
    ]
    mean = ((units[0] @ units[0].sum(0) - 1) / (n - 1)).numpy()
    single = units[0].numpy().astype(np.float32)  # enough to say how much two images resemble each other, and faster
    blocks = [
        _margins_of(rows, units, single, [side[rows] for side in lists], ks, mean[rows], line, own_change, width)
        for rows in np.split(np.arange(n), range(BLOCK, n, BLOCK))
    ]
    return Margins(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def _margins_of(rows, units, single, lists, ks, mean, line, own_change, width):
    """Margins of a block of rows. single (n, d1): units before, in float32. mean (b,): the rows' mean cosine before."""
    n, longest, at = len(units[0]), max(ks), np.arange(len(rows))
    similar, changed = (unit[torch.from_numpy(rows)] @ unit.T for unit in units)
    similar[at, rows] = changed[at, rows] = -torch.inf  # the image itself comes first in ascending order
    # Sorted by NumPy, which is faster than torch.
    ordered, after_ordered = (torch.from_numpy(np.sort(side.numpy(), axis=1)) for side in (similar, changed))
    one, two = (torch.from_numpy(side) for side in lists)
    own, new = similar.gather(1, one), similar.gather(1, two)
    ranks = _above(ordered, new + ROUNDING) + 1, _above(after_ordered, changed.gather(1, one) + ROUNDING) + 1

    similar[at, rows] = changed[at, rows] = 0
    epsilon = (changed.mul_(line[1]).add_(line[0]).sub_(similar)).abs_()
    epsilon[at, rows] = 0
    epsilon = epsilon.amax(1)
    near_own = _above(ordered, own - 2 * epsilon[:, None] - ROUNDING)  # how many others lie within 2 epsilon, or above

    own, new, ordered = own.numpy(), new.numpy(), ordered.numpy()
    columns = []
    for k, (row, went, came) in zip(ks, swaps(lists, (own, new), n, ks), strict=True):
        inside, outside = ordered[:, n - k], ordered[:, n - k - 1]
        s, t = own[row, went], new[row, came]
        noise = difference_noise(s, t, pair_cosines(single, lists[0][row, went], lists[1][row, came]), width)
        nearer = own[:, :k].mean(1) - mean
        closeness = np.full(len(rows), np.nan)
        np.divide(new[:, :k].mean(1) - mean, nearer, out=closeness, where=nearer > ROUNDING)
        lost, near_ties, own_ties = (
            np.bincount(row[counted], minlength=len(rows))
            for counted in (slice(None), could_swap(s, t, TOLERANCE * noise), could_swap(s, t, 2 * own_change))
        )
        ties = (near_own[:, :k] - k).clip(0).sum(1)
        density = lower_density(ordered[:, 1:], inside, outside)
        columns.append((inside, outside, ties, lost, near_ties, own_ties, closeness, density))
    by_k = [np.stack(values, axis=1).astype(np.float64) for values in zip(*columns, strict=True)]
    return *by_k, epsilon.numpy(), ordered[:, : -longest - 2 : -1], *ranks


def _above(ordered, values):
    """(b, k): how many of each row of `ordered` (ascending) are not below each value."""
    return ordered.shape[1] - torch.searchsorted(ordered, values).numpy()


def _checked_list(lists, name, n, k):
    lists = np.asarray(lists)
    if lists.ndim != 2 or len(lists) != n or lists.shape[1] < k:
        raise ValueError(f"{name}: has shape {lists.shape}; wanted ({n}, at least {k})")
    return lists[:, :k].astype(np.int64)
