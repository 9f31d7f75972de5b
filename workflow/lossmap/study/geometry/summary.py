"""What all measures of geometry share: settings, seeds, and the rows of the summary."""

from typing import Any

import numpy as np

from lossmap.measures.seeds import seed_for
from lossmap.measures.statistics import bootstrap_mean
from lossmap.study.specs import MeasureGeometry


class Summary:
    """Rows of the summary, one for each measure and k. counts: n, images and copies, of the dataset."""

    def __init__(self, spec: MeasureGeometry, counts: dict[str, int]):
        self.spec, self.counts, self.n = spec, counts, counts["n"]
        self.rows: list[dict] = []
        self.resampling: dict[str, Any] = {
            "resamples": spec.resamples,
            "confidence": spec.confidence,
            "seed": self.seed("images"),
        }

    def seed(self, purpose: str) -> int:
        return seed_for(self.spec.seed, "measure_geometry", self.spec.dataset, self.spec.model, purpose)

    def add(self, measure: str, interval, k: int | None = None, chance: float = np.nan, n: int | None = None) -> None:
        """One row of the summary; k is missing where a measure has none."""
        place = {"dataset": self.spec.dataset, **self.counts, "model": self.spec.model}
        place["n"] = n or self.n
        value, low, high = interval
        row = {"measure": measure, "k": k, "value": value, "low": low, "high": high, "chance": chance}
        self.rows.append({**place, **row})

    def add_mean(self, measure: str, values: np.ndarray, k: int | None = None, chance: float = np.nan) -> None:
        self.add(measure, bootstrap_mean(values, **self.resampling), k, chance)
