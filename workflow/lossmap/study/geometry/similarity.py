"""How alike whole sets of embeddings are, and how many dimensions they use."""

import numpy as np

from lossmap.measures.dimension import effective_rank, intrinsic_dimension
from lossmap.measures.similarity import cka
from lossmap.study.geometry.summary import Summary
from lossmap.study.neighbour_lists import STAGES


def measure_similarity(measured: Summary, before: np.ndarray, after: np.ndarray, lists: list[np.ndarray]) -> None:
    """Measures of whole sets of embeddings."""
    measured.add("cka", cka(before, after, **measured.resampling).interval, chance=0)
    for stage, x, nearest in zip(STAGES, (before, after), lists, strict=True):
        measured.add(f"effective_rank_{stage}", effective_rank(x, **measured.resampling))
        dimension = intrinsic_dimension(x, nearest, measured.spec.confidence)
        measured.add(f"intrinsic_dimension_{stage}", dimension.interval, n=dimension.used)
