"""Standard errors by half-sampling, for measures of all images together that no sum over images describes."""

import numpy as np
from scipy import stats

from lossmap.measures.statistics import MeanInterval, check_resampling

DRAWS = 24  # halves
MOST = 2500  # items of one, at most, so that the cost is bounded
LEAST = 10  # items of a half: with fewer there is no interval


def half_sample_size(n):
    """How many of n items each draw takes; 0 if too few."""
    return min(n // 2, MOST) if n >= 2 * LEAST else 0


def half_sample_errors(measure, n, seed=0):
    """Standard errors of measures, from their spread over random halves of the items.

    A half without replacement varies about the whole as the whole does about the population: (1 - 1/2) / (n/2) = 1/n.
    Each half is measured anew from its items, so that neighbours, norms and medians vary as they do between samples.

    Parameters: measure(rows) -> (m,) float, the measures of these items (sorted indices), nan where undefined. n items.
        seed: int or sequence.
    Returns: (m,) float64; nan where fewer than half of the draws are defined.
    Raises: ValueError if n is below 20.
    Source: Politis, Romano and Wolf, Subsampling, 1999, chapter 2.
    """
    size, rng = half_sample_size(n), np.random.default_rng(seed)
    if not size:
        raise ValueError(f"n is {n}; wanted at least {2 * LEAST}, for halves of {LEAST}")
    found = np.stack([measure(np.sort(rng.permutation(n)[:size])) for _ in range(DRAWS)])
    defined = ~np.isnan(found)
    counts = defined.sum(axis=0)
    means = np.where(defined, found, 0).sum(axis=0) / np.maximum(counts, 1)
    squares = (np.where(defined, found - means, 0) ** 2).sum(axis=0) / np.maximum(counts - 1, 1)
    return np.where(2 * counts >= DRAWS, np.sqrt(squares * (size / n) / (1 - size / n)), np.nan)


def half_sample_interval(value, error, confidence=0.95, bounds=(-np.inf, np.inf)):
    """MeanInterval of a value with such an error, by Student's t; nan where the error is. bounds: of the value."""
    check_resampling(1, confidence)
    half = stats.t.ppf((1 + confidence) / 2, DRAWS - 1) * error
    return MeanInterval(
        float(value), float(np.maximum(value - half, bounds[0])), float(np.minimum(value + half, bounds[1]))
    )
