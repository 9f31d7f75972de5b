"""What a measure of two sets of embeddings gives, and what it takes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossmap.measures.statistics import MeanInterval

if TYPE_CHECKING:
    import xarray as xr

Embeddings: TypeAlias = "xr.Dataset | ArrayLike"  # a Dataset of both sides, or one side; tensors are like arrays


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
    null: NDArray[np.float64] | None = None
    per_item: NDArray[np.float64] | None = None
    items: NDArray[np.int64] | None = None

    @property
    def interval(self) -> MeanInterval:
        """Value, low, high."""
        return MeanInterval(self.value, self.low, self.high)

    def __repr__(self) -> str:
        chance = "" if np.isnan(self.chance) else f", chance {self.chance:.3f}"
        p = ""
        if self.p is not None and self.null is not None:
            p = f", p {'<=' if self.p <= 1 / (1 + len(self.null)) else '='} {self.p:.2g}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]{chance}{p} (n = {self.n:,})"


def is_dataset(embeddings: Embeddings) -> "TypeGuard[xr.Dataset]":
    """Told by what it has, for xarray takes a second to import."""
    return hasattr(embeddings, "data_vars")


def sides(before: Embeddings, after: ArrayLike | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two sets of embeddings, one row an item: (n, d1) and (n, d2).

    Parameters: before, a Dataset of embeddings, whose pre_mean and post_mean are taken; or before and after, arrays or
        tensors, (n, d) or (n, vectors, d), of which the mean over vectors is taken; or lists
        of the items' (vectors, d).
    Raises: ValueError if after is missing, or given with a Dataset.
    """
    if is_dataset(before):
        if after is not None:
            raise ValueError("before: is a Dataset, which holds both sides; leave after out")
        return before["pre_mean"].values, before["post_mean"].values
    if after is None:
        raise ValueError("after: is missing; give embeddings as a Dataset, or before and after as arrays")
    return _pooled(cast(ArrayLike, before)), _pooled(after)


def _pooled(x: ArrayLike) -> NDArray[Any]:
    if isinstance(x, list | tuple) and len({np.shape(one) for one in x if hasattr(one, "shape")}) > 1:
        return np.concatenate([_mean_of_one(one) for one in x])
    array = x.detach().cpu().float().numpy() if hasattr(x, "detach") else np.asarray(x)
    return array.mean(axis=1, dtype=np.float32) if array.ndim == 3 else array


def _mean_of_one(x: Any) -> NDArray[Any]:
    """(vectors, d) or (rows, columns, d) of one item -> (1, d)."""
    array = x.detach().cpu().float().numpy() if hasattr(x, "detach") else np.asarray(x)
    return array.reshape(1, -1, array.shape[-1]).mean(axis=1, dtype=np.float32)
