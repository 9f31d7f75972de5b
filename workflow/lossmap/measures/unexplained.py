"""Fraction of variance unexplained (FVU) of a set of images, with bootstrap intervals; how it falls with size."""

from typing import NamedTuple

import numpy as np

from lossmap.measures.resampling import resampled_means
from lossmap.measures.statistics import interval_tails


class Intervals(NamedTuple):
    """Values with their intervals; each float64 of the same shape: () for one column of items, (k,) for k of them."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def unexplained(errors, variances, resamples=2000, confidence=0.95, seed=0) -> Intervals:
    """Fraction of variance unexplained, sum of errors / sum of variances, with bootstrap interval over images.

    A ratio of sums, not a mean of ratios: it is 1 - R² of all patches together, and an image of little variance does
    not outweigh the others. Means are the same with variances of 1: then it is the mean squared error.
    Parameters: errors and variances (n,) or (n, k), real, >= 0; row i is the same image in all columns, which share
        their resamples. variances is the mean squared deviation from the training set's mean. resamples, at least 1.
        confidence in (0, 1). seed: int or sequence.
    Returns: Intervals; 0 = all explained, 1 = no better than predicting the mean, above 1 = worse.
    Raises: ValueError if shapes differ, there is no image, a value is negative or not finite, or a variance is zero
        (the first such row is named).
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 10.6 (ratio), 13.3 (percentiles).
    """
    ratios = _Ratios(errors, variances, "errors")
    resampled = ratios.resampled(resamples, seed)
    return Intervals(ratios.value, *np.quantile(resampled, interval_tails(confidence), axis=0))


def unexplained_difference(
    errors, others, variances, resamples=2000, confidence=0.95, seed=0, other_variances=None
) -> Intervals:
    """Difference of two FVUs on the same images, errors minus others, with paired bootstrap interval over images.

    Paired: each resample draws the same images for both, so that what makes an image hard for both cancels.
    Parameters: errors, others and variances (n,) or (n, k), as for `unexplained`; other_variances, of the same shape,
        those of `others` where they are not the same. Returns: Intervals.
    Raises: ValueError as `unexplained`.
    """
    ratios = _Ratios(errors, variances, "errors")
    rest = _Ratios(others, variances if other_variances is None else other_variances, "others")
    resampled = ratios.resampled(resamples, seed) - rest.resampled(resamples, seed)
    return Intervals(ratios.value - rest.value, *np.quantile(resampled, interval_tails(confidence), axis=0))


class Growth(NamedTuple):
    """A loss over growing size (parameters, images or passes) as a power law, end * (size / last size) ** -exponent.

    Of a curve's last two points; it goes to zero, which a loss that no size undoes does not.
    """

    end: float  # the last loss
    exponent: float  # 0 where the last step did not fall

    def at(self, factor: float) -> float:
        """The loss at so many times the last size."""
        return self.end * factor**-self.exponent

    def falls(self, best: float, tolerance: float) -> bool:
        """Whether twice the size promises a loss lower by more than the tolerance and below the best that is known.

        It does not where the best is within the tolerance of 0, and a curve far above the best does not count.
        """
        twice = self.at(2)
        return bool(self.end - twice > tolerance and twice < best and best > tolerance)

    def needed(self, tolerance: float) -> float:
        """How many times the last size it takes until twice as much promises no more than the tolerance; 1: none."""
        gain = self.end - self.at(2)
        if gain <= tolerance:
            return 1.0
        with np.errstate(divide="ignore", over="ignore"):  # a tolerance of 0 is never reached
            return float(np.power(np.float64(gain) / tolerance, 1 / self.exponent))


def growth(sizes, losses) -> Growth:
    """The power law through the last two points of a curve.

    Parameters: sizes (k,), rising, > 0; losses (k,), >= 0; k >= 2.
    Raises: ValueError if there are fewer than 2 points, one is not finite, or the sizes don't rise.
    """
    sizes, losses = (np.asarray(values, dtype=np.float64) for values in (sizes, losses))
    if losses.ndim != 1 or len(losses) < 2 or sizes.shape != losses.shape:
        raise ValueError(
            f"losses: have shape {losses.shape} at sizes {sizes.shape}; wanted at least 2 in a row of both"
        )
    if not np.isfinite(losses).all():
        raise ValueError(f"losses: entry {np.isfinite(losses).argmin()} is not finite")
    if not (np.diff(sizes) > 0).all() or sizes[0] <= 0:
        raise ValueError(f"sizes: {sizes.tolist()}; wanted rising numbers above 0")
    (before, after), (small, large) = losses[-2:], sizes[-2:]
    falls = 0 < after < before
    return Growth(float(after), float(np.log(before / after) / np.log(large / small)) if falls else 0.0)


class _Ratios:
    """Sums of errors over sums of variances, of all images and of resamples of them."""

    def __init__(self, errors, variances, name):
        self.errors, self.variances = _checked(errors, name), _checked(variances, "variances")
        if self.errors.shape != self.variances.shape:
            raise ValueError(
                f"{name} have shape {self.errors.shape} and variances {self.variances.shape}; row i must be the same "
                "image in both"
            )
        zero = (self.variances == 0).reshape(len(self.variances), -1).any(axis=1)
        if zero.any():
            raise ValueError(
                f"variances: row {zero.argmax()} is zero; of an image without variance no share is unexplained"
            )
        self.value = self.errors.sum(axis=0) / self.variances.sum(axis=0)

    def resampled(self, resamples, seed):
        """(resamples,) or (resamples, k) ratios. Both sides draw the same images: the seed is the same."""
        sides = (side.reshape(len(side), -1) for side in (self.errors, self.variances))
        errors, variances = (resampled_means(side, resamples, seed) for side in sides)
        return (errors / variances).reshape(-1, *self.errors.shape[1:])


def _checked(values, name):
    values = np.asarray(values, dtype=np.float64)
    if values.ndim not in (1, 2) or not values.size:
        raise ValueError(f"{name}: have shape {values.shape}; wanted (images,) or (images, columns), none empty")
    bad = ~(np.isfinite(values) & (values >= 0)).reshape(len(values), -1).all(axis=1)
    if bad.any():
        raise ValueError(f"{name}: {bad.sum()} rows are negative or not finite; the first is row {bad.argmax()}")
    return values
