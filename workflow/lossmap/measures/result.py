"""What a measure of two sets of embeddings gives, and what it takes."""

from dataclasses import dataclass

import numpy as np

from lossmap.measures.statistics import MeanInterval


@dataclass(frozen=True, eq=False, repr=False)
class Measured:
    """A measure, its interval, and what it is compared with.

    value; low, high: its interval, for the population that the items are a sample of. chance: what unrelated embeddings
    score, nan where that isn't known. n: items it rests on. p: share of the null that is at least the value, and null:
    its values when it is forgotten which items belong together; None where they were not drawn. per_item: of each item
    that was compared, and items: their numbers; None where the measure has none.
    """

    value: float
    low: float
    high: float
    chance: float
    n: int
    p: float | None = None
    null: np.ndarray | None = None
    per_item: np.ndarray | None = None
    items: np.ndarray | None = None

    @property
    def interval(self) -> MeanInterval:
        """Value, low, high."""
        return MeanInterval(self.value, self.low, self.high)

    def __repr__(self) -> str:
        chance = "" if np.isnan(self.chance) else f", chance {self.chance:.3f}"
        p = "" if self.p is None else f", p {'<=' if self.p <= 1 / (1 + len(self.null)) else '='} {self.p:.2g}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]{chance}{p} (n = {self.n:,})"


def sides(before, after=None):
    """Two sets of embeddings, one row an item: (n, d1) and (n, d2).

    Parameters: before, a Dataset of embeddings, whose pre_mean and post_mean are taken; or before and after, arrays or
        tensors, (n, d) or (n, vectors, d), of which the mean over vectors is taken.
    Raises: ValueError if after is missing, or given with a Dataset.
    """
    if hasattr(before, "data_vars"):
        if after is not None:
            raise ValueError("before: is a Dataset, which holds both sides; leave after out")
        return before["pre_mean"].values, before["post_mean"].values
    if after is None:
        raise ValueError("after: is missing; give embeddings as a Dataset, or before and after as arrays")
    return _pooled(before), _pooled(after)


def _pooled(x):
    x = x.detach().cpu().float().numpy() if hasattr(x, "detach") else np.asarray(x)
    return x.mean(axis=1, dtype=np.float32) if x.ndim == 3 else x
