"""What a connector does to the distances and angles of pairs of images, whoever their neighbours are."""

from typing import NamedTuple

import numpy as np

from lossmap.measures.checks import checked_matrix
from lossmap.measures.resampling import image_counts, percentile_interval
from lossmap.measures.statistics import check_resampling

PAIRS = 2**14  # at least so many where there are as many, each image in as many as any other


class PairChanges(NamedTuple):
    """Pairs of images and what became of them; all (p,).

    first, second: the images. cosine: before. change: after less before. residual: after, put on the line, less before.
    ratio: Euclidean distance after / before; nan for twins, whose distance before is 0.
    """

    first: np.ndarray
    second: np.ndarray
    cosine: np.ndarray
    change: np.ndarray
    residual: np.ndarray
    ratio: np.ndarray
    line: tuple[float, float]  # offset, slope >= 0: offset + slope * cosine after comes closest to the cosine before


def pair_changes(before, after):
    """Change of cosine and of distance over pairs of images.

    A change that is the same rising line for all pairs, such as embeddings drawing together, moves no neighbour: the
    residual is what is left after the best such line.

    Parameters: before (n, d1) and after (n, d2), real, n >= 3; row i is the same image in both.
    Returns: PairChanges of all pairs (i, i + offset), for as many offsets, spread evenly, as give PAIRS pairs.
    Raises: ValueError if the row counts differ, n < 3, a value is not finite, or a row has length zero (the message
        names the first such row).
    """
    before, after = checked_matrix(before, "before"), checked_matrix(after, "after")
    n = len(before)
    if n != len(after):
        raise ValueError(f"before has {n} rows and after {len(after)}; row i must be the same item in both")
    if n < 3:
        raise ValueError(f"before has {n} rows; wanted at least 3")
    sides = [(x.astype(np.float64), unit_rows(x, name)) for x, name in ((before, "before"), (after, "after"))]
    longest = (n - 1) // 2
    offsets = np.unique(np.linspace(1, longest, min(longest, -(-PAIRS // n))).round().astype(int))
    cosines, distances = [], []
    for x, unit in sides:
        cosines.append(np.concatenate([np.einsum("ij,ij->i", unit, np.roll(unit, -o, axis=0)) for o in offsets]))
        distances.append(np.concatenate([np.linalg.norm(x - np.roll(x, -o, axis=0), axis=1) for o in offsets]))
    first = np.tile(np.arange(n), len(offsets))
    second = (first + np.repeat(offsets, n)) % n
    offset, slope = _rising_line(cosines[1], cosines[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(distances[0] > 0, distances[1] / distances[0], np.nan)
    change, residual = cosines[1] - cosines[0], offset + slope * cosines[1] - cosines[0]
    return PairChanges(first, second, cosines[0], change, residual, ratio, (offset, slope))


def pair_quantiles(values, first, second, quantiles, resamples=2000, confidence=0.95, seed=0):
    """Quantiles over pairs, with percentile bootstrap intervals over images: a pair counts as often as both its images.

    Parameters: values (p,), finite, or nan for pairs to leave out. first, second (p,): each pair's images.
    Returns: a MeanInterval (of the quantile, though) for each quantile: the smallest value that this share of the pairs
        does not exceed.
    Raises: ValueError if no pair is left.
    """
    check_resampling(resamples, confidence)
    used = ~np.isnan(values)
    if not used.any():
        raise ValueError("values: no pair is left; all are nan")
    n = int(max(first.max(), second.max())) + 1
    order = np.flatnonzero(used)[np.argsort(values[used], kind="stable")]
    ordered, first, second = values[order], first[order], second[order]
    shares = np.asarray(quantiles, dtype=np.float64)
    found = []
    for counts in image_counts(n, resamples, seed):
        for times in counts.astype(np.int32):
            reached = np.cumsum(times[first] * times[second])
            if reached[-1]:  # else no pair was drawn
                found.append(ordered[np.searchsorted(reached, np.maximum(np.ceil(shares * reached[-1]), 1))])
    found = np.array(found) if found else np.full((1, len(shares)), np.nan)
    places = np.maximum(np.ceil(shares * len(ordered)), 1).astype(int) - 1
    return [
        percentile_interval(ordered[place], column, confidence) for place, column in zip(places, found.T, strict=True)
    ]


def unit_rows(x, name):
    """x / its row lengths, float64. ValueError if a row has length zero."""
    x = np.asarray(x, dtype=np.float64)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise ValueError(
            f"{name}: row {(lengths[:, 0] == 0).argmax()} has length zero, so it has no direction to compare"
        )
    return x / lengths


def _rising_line(x, y):
    """Offset and slope >= 0 of the least-squares line through (x, y)."""
    centred = x - x.mean()
    power = centred @ centred
    slope = max(float(centred @ (y - y.mean()) / power), 0.0) if power else 0.0
    return float(y.mean() - slope * x.mean()), slope
