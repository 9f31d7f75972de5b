"""Intervals of means that rest on neighbours, where each item is a query and a neighbour of others."""

from typing import NamedTuple

import numpy as np
from scipy import sparse, stats

from lossmap.measures.statistics import MeanInterval, check_resampling


class PerItem(NamedTuple):
    """A value of each item, whose mean is the measure, and how far each item moves that mean.

    values (n,). influence (n,), times n: what an item adds as a query, its value less the mean, and what it adds
    to the values of others by being among their neighbours. parts, sparse (n, n), or None where they are too many:
    entry (j, i) is what item i, as a neighbour, adds to the value of j. shared: how much of the squares of
    the parts counts twice, for the query and for the neighbour, and is taken out again.
    """

    values: np.ndarray
    influence: np.ndarray
    parts: sparse.csr_array | None = None
    shared: float = 0.0

    def __sub__(self, other: "PerItem") -> "PerItem":
        """The paired difference, of the same items."""
        parts = None if self.parts is None or other.parts is None else self.parts - other.parts
        shared = min(self.shared, other.shared)
        return PerItem(self.values - other.values, self.influence - other.influence, parts, shared)

    def __mul__(self, factor: float) -> "PerItem":  # type: ignore[override]  # not a tuple's, which repeats it
        parts = None if self.parts is None else self.parts * factor
        return PerItem(self.values * factor, self.influence * factor, parts, self.shared)

    @property
    def error(self) -> float:
        """Standard error of the mean for the population that the items were drawn from; 0 for a single item.

        The influences are added up as if independent, which they are to first order (the infinitesimal jackknife). The
        values alone are not, for items share neighbours. Coverage of the intervals: docs/coverage.md.
        Source: Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, chapter 6; for the parts, the
        variance of dyadic data, Aronow, Samii and Assenova 2015, doi:10.1093/pan/mpv018.
        """
        n = len(self.values)
        if n < 2:
            return 0.0
        squares = ((self.influence - self.influence.mean()) ** 2).sum()
        if self.parts is not None and self.shared:
            twice = self.parts.multiply(self.parts).sum() + self.parts.multiply(self.parts.T).sum()
            squares = max(squares - self.shared * twice, ((self.values - self.values.mean()) ** 2).sum())
        return float(np.sqrt(squares / (n * (n - 1))))

    def interval(self, confidence: float = 0.95, bounds: tuple[float, float] = (-np.inf, np.inf)) -> MeanInterval:
        """MeanInterval by Student's t. confidence in (0, 1). bounds: what the mean can't leave."""
        check_resampling(1, confidence)
        n, mean = len(self.values), float(self.values.mean())
        half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * self.error if n > 1 else 0.0
        return MeanInterval(mean, max(mean - half, bounds[0]), min(mean + half, bounds[1]))

    def change_interval(self, confidence: float = 0.95) -> MeanInterval:
        """MeanInterval of the change of a share, a difference of values in [0, 1]: not empty where no item changed.

        Then it is plus and minus the share of items that may change all the same, which no change of the mean exceeds.
        Source: Clopper and Pearson 1934, the upper bound where none of n independent items has changed; about 3 / n.
        """
        found = self.interval(confidence, bounds=(-1, 1))
        if self.values.any() or found.low < found.high:
            return found
        most = 1 - (1 - confidence) ** (1 / len(self.values))
        return MeanInterval(found.mean, -most, most)

    def share_interval(self, confidence: float = 0.95) -> MeanInterval:
        """MeanInterval of a share of items, values in [0, 1]: not symmetric near 0 and 1, nor empty at them.

        Source: Wilson's score interval, 1927, at the number of independent items that would have this standard error.
        """
        check_resampling(1, confidence)
        n, p = len(self.values), float(self.values.mean())
        effective = p * (1 - p) / self.error**2 if self.error > 0 and 0 < p < 1 else n
        z2 = stats.norm.ppf((1 + confidence) / 2) ** 2 / effective
        centre = (p + z2 / 2) / (1 + z2)
        half = np.sqrt(z2 * (p * (1 - p) + z2 / 4)) / (1 + z2)
        return MeanInterval(p, float(min(p, max(0.0, centre - half))), float(max(p, min(1.0, centre + half))))
