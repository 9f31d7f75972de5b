"""What every measure asks of its input."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

LARGEST = 1e150  # beyond this a square no longer fits float64


def checked_matrix(x: ArrayLike, name: str) -> NDArray[Any]:
    """x as (n, d) float32 or float64 in native byte order, or a ValueError that says what is wrong and in which row."""
    x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"{name}: has shape {x.shape}; wanted 2 dimensions, items by features")
    if x.size == 0:
        raise ValueError(f"{name}: is empty, shape {x.shape}; wanted at least one item and one feature")
    if x.dtype.kind not in "fiub":
        raise ValueError(f"{name}: holds {x.dtype}; wanted real numbers")
    x = np.require(x, np.float32 if x.dtype.kind == "f" and x.dtype.itemsize <= 4 else np.float64, ["C", "W"])
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise ValueError(f"{name}: {bad.sum()} of {len(x)} rows are not finite; the first is row {bad.argmax()}")
    if x.dtype == np.float64 and max(x.max(), -x.min()) > LARGEST:
        row = (np.abs(x) > LARGEST).any(axis=1).argmax()
        raise ValueError(f"{name}: row {row} holds a value beyond {LARGEST:g}; rescale, its square overflows")
    return x


def check_k(k: int, n: int) -> None:
    """ValueError unless 1 <= k <= n - 1."""
    if not 1 <= k <= n - 1:
        raise ValueError(f"k is {k}; wanted 1 to {n - 1}, for {n} items have {n - 1} neighbours each")
