"""Whether a rotation, or any linear map, takes embeddings after the connector back to those before it."""

import numpy as np
import pandas as pd

from lossmap.measures.procrustes import first_components, procrustes
from lossmap.study.geometry.summary import Summary
from lossmap.study.neighbour_lists import STAGES


def measure_alignment(measured: Summary, before: np.ndarray, after: np.ndarray) -> pd.DataFrame:
    """Procrustes as in the paper, shares of variance on held-out images; per image, its error and what Figure 6 draws.

    Returns: procrustes_error; pre_1, pre_2, post_1, post_2, aligned_1, aligned_2, places along principal components;
    pre_length, post_length, distances from the mean of all, which a rotation does not change.
    """
    rng = np.random.default_rng(measured.seed("alignment"))
    found = procrustes(before, after, **measured.resampling, rng=rng)
    aligned = found.alignment
    measured.add("procrustes_error", found.error.interval, chance=found.error.chance)
    for name in ("std", "min", "max"):
        measured.add(f"procrustes_error_{name}", (getattr(aligned.errors, name)(), np.nan, np.nan))
    for name, share in found.unexplained.items():
        measured.add(f"unexplained_{name}", share.interval, chance=share.chance, n=share.n)
    onto_before = first_components(aligned.before)
    places = {
        "pre": aligned.before @ onto_before,
        "post": aligned.after @ first_components(aligned.after),
        "aligned": aligned.aligned @ onto_before,
    }
    columns = {f"{name}_{j + 1}": place[:, j] for name, place in places.items() for j in range(2)}
    lengths = {
        f"{stage}_length": np.linalg.norm(x - x.mean(axis=0, dtype=np.float64), axis=1)
        for stage, x in zip(STAGES, (before, after), strict=True)
    }
    return pd.DataFrame({"procrustes_error": aligned.errors, **columns, **lengths})
