"""Bootstrap over images of whatever can be computed from means over images."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossmap.measures.statistics import MeanInterval, bootstrap_draws, check_resampling, interval_tails


def image_counts(n: int, resamples: int, seed: int | Sequence[int]) -> Iterator[NDArray[np.float64]]:
    """How often each of n images is drawn in each resample, in batches: (b, n) float64, `resamples` rows in all.

    The draws of a seed are those of statistics.bootstrap_mean.
    """
    for draws in bootstrap_draws(n, resamples, seed):
        start = np.arange(len(draws))[:, None] * n
        yield np.bincount((draws + start).ravel(), minlength=draws.size).reshape(draws.shape).astype(np.float64)


def resampled_means(values: ArrayLike, resamples: int = 2000, seed: int | Sequence[int] = 0) -> NDArray[np.float64]:
    """Means of several values of each image, over images drawn with replacement: the same images for all values.

    Parameters: values (n, c), real, finite. Returns: (resamples, c) float64.
    Raises: ValueError if values is not such an array (the first row that is not finite is named), or resamples < 1.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"values: has shape {values.shape}; wanted (images, values), none empty")
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise ValueError(f"values: {bad.sum()} of {len(values)} rows are not finite; the first is row {bad.argmax()}")
    check_resampling(resamples, 0.5)
    return np.concatenate([counts @ values for counts in image_counts(len(values), resamples, seed)]) / len(values)


def percentile_interval(value: float, resampled: NDArray[np.float64], confidence: float = 0.95) -> MeanInterval:
    """MeanInterval of a value and its resamples; those that are nan (undefined) are left out; nan if all are."""
    check_resampling(1, confidence)
    defined = resampled[~np.isnan(resampled)]
    low, high = np.quantile(defined, interval_tails(confidence)) if len(defined) else (np.nan, np.nan)
    return MeanInterval(float(value), float(low), float(high))


def ratio_interval(
    numerator: ArrayLike,
    denominator: ArrayLike,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int | Sequence[int] = 0,
) -> MeanInterval:
    """Sum over images of one value / sum of another, with percentile bootstrap interval over images.

    Parameters: numerator, denominator (n,), real; row i is the same image in both. An image may have denominator 0.
    Returns: MeanInterval; nan where the denominators sum to 0. Resamples in which they do are left out.
    Raises: ValueError if lengths differ, or a value is not finite.
    """
    numerator, denominator = np.asarray(numerator), np.asarray(denominator)
    if numerator.shape != denominator.shape:
        raise ValueError(
            f"numerator has shape {numerator.shape}, denominator {denominator.shape}; wanted (images,) twice"
        )
    above, below = resampled_means(np.stack([numerator, denominator], axis=1), resamples, seed).T
    total = denominator.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(below == 0, np.nan, above / below)
    return percentile_interval(numerator.sum() / total if total else np.nan, ratios, confidence)
