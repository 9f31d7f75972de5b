"""How much the connector changes the cosines and distances of pairs of images."""

import numpy as np

from lossmap.measures.distortion import pair_changes, pair_quantiles
from lossmap.study.geometry.summary import Summary


def measure_distortion(measured: Summary, before: np.ndarray, after: np.ndarray) -> tuple[tuple[float, float], float]:
    """Quantiles over pairs of images. Returns the line of PairChanges and the median change beyond it."""
    changes = pair_changes(before, after)
    typical = None
    for name, values, quantiles in (
        ("cosine_change", np.abs(changes.change), (0.5, 0.95)),
        ("cosine_residual", np.abs(changes.residual), (0.5, 0.95)),
        ("distance_ratio", changes.ratio / np.nanmedian(changes.ratio), (0.01, 0.99)),
    ):
        intervals = pair_quantiles(values, changes.first, changes.second, quantiles, **measured.resampling)
        for quantile, interval in zip(quantiles, intervals, strict=True):
            measured.add(f"{name}_q{round(100 * quantile):02d}", interval)
        typical = intervals[0].mean if name == "cosine_residual" else typical
    return changes.line, typical
