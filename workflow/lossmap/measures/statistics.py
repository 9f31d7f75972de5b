"""Bootstrap intervals over items."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS_AT_ONCE = 2**20  # bounds memory; part of what a seed means, so do not make it an argument


class MeanInterval(NamedTuple):
    """A mean and its interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def bootstrap_mean(
    values: ArrayLike, resamples: int = 2000, confidence: float = 0.95, seed: int | Sequence[int] = 0
) -> MeanInterval:
    """Mean of values with its percentile bootstrap interval over items.

    Parameters: values (n,), real, one for each item. resamples, at least 1. confidence in (0, 1). seed: int or
        sequence.
    Returns: MeanInterval (mean, low, high), floats; low = high = mean for a single item.
    Raises: ValueError if values is not 1-d, is empty, or holds a value that is not finite (the message names the
        first).
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    values = checked_vector(values, "values")
    check_resampling(resamples, confidence)
    means = [values[draws].mean(axis=1) for draws in bootstrap_draws(len(values), resamples, seed)]
    low, high = np.quantile(np.concatenate(means), interval_tails(confidence))
    return MeanInterval(float(values.mean()), float(low), float(high))


def bootstrap_draws(n: int, resamples: int, seed: int | Sequence[int]) -> Iterator[NDArray[np.int32]]:
    """(b, n) indices drawn with replacement, in batches of bounded size, `resamples` rows in all."""
    rng = np.random.default_rng(seed)
    size = max(1, DRAWS_AT_ONCE // n)
    for start in range(0, resamples, size):
        yield rng.integers(0, n, (min(size, resamples - start), n), dtype=np.int32)


def interval_tails(confidence: float) -> list[float]:
    """Quantiles at which an interval of this confidence begins and ends."""
    return [(1 - confidence) / 2, (1 + confidence) / 2]


def check_resampling(resamples: int, confidence: float) -> None:
    """Raises ValueError unless resamples >= 1 and 0 < confidence < 1."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; wanted at least 1")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; wanted a number between 0 and 1")


def checked_vector(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """values as (n,) float64. Raises ValueError, naming the first bad entry, if they are no finite, real vector."""
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"{name}: has shape {values.shape}; wanted 1 dimension")
    if values.size == 0:
        raise ValueError(f"{name}: is empty; wanted at least one value")
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{name}: holds {values.dtype}; wanted real numbers")
    values = values.astype(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(f"{name}: {bad.sum()} of {len(values)} are not finite; the first is entry {bad.argmax()}")
    return values
