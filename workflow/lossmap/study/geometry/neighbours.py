"""Margins, ties and ranks of every image and k, and what they come to."""

import numpy as np
import pandas as pd

from lossmap.measures.margins import Margins
from lossmap.measures.overlap import chance_overlap, ranking_overlap
from lossmap.measures.random_projection import sampling_margin
from lossmap.measures.ranking import Ranking
from lossmap.measures.similarity import (
    chance_trustworthiness,
    order_agreement,
    trustworthiness,
    trustworthiness_with_ties,
)
from lossmap.study.geometry.summary import Summary


def measure_neighbours(
    measured: Summary, margins: Margins, rankings: list[Ranking], units: list[np.ndarray], means: dict, image_ids
) -> pd.DataFrame:
    """Margins, ties and ranks of every image and k, and what they come to."""
    ks, n, confidence = measured.spec.k, measured.n, measured.spec.confidence
    overlap, bound, sharper = margins.overlap(ks), margins.bound(ks), margins.sharper_bound(ks)
    guaranteed = sampling_margin(margins.inside - margins.outside, margins.density, n, measured.spec.delta)
    plain = all(ranking.without_ties for ranking in rankings)
    sides = {"trustworthiness": (0, 1, margins.ranks_before), "continuity": (1, 0, margins.ranks_after)}

    measured.add("epsilon", (margins.epsilon.mean(), np.nan, np.nan))
    frames = []
    for j, k in enumerate(ks):
        kept = ranking_overlap(rankings[0], rankings[1], k)
        columns = {
            "margin": (margins.inside - margins.outside)[:, j],
            "epsilon": margins.epsilon,
            **{name: getattr(margins, name)[:, j] for name in ("ties", "lost", "near_ties", "own_ties", "closeness")},
            "overlap": kept.values,
            "bound": bound[:, j],
            "sharper_bound": sharper[:, j],
            "guaranteed_margin": guaranteed[:, j],
        }
        measured.add("mutual_neighbours", kept.interval(confidence, bounds=(0, 1)), k, chance_overlap(n, k))
        if 2 * k < n:  # beyond, trustworthiness is not defined
            for name, (ranked, listed, ranks) in sides.items():
                if plain:
                    columns[name] = trustworthiness(ranks[:, :k], n)
                else:
                    columns[name] = trustworthiness_with_ties(units[ranked], rankings[listed], k)
                moved = columns[name].mean() - means[name, j].mean  # by ties
                measured.add(name, [part + moved for part in means[name, j]], k, chance_trustworthiness(n, k))
        if k > 1:
            columns["kendall"], columns["spearman"] = order_agreement(margins.ranks_after[:, :k])
            for name in ("kendall", "spearman"):
                measured.add(name, means[name, j], k, 0)
        median = float(np.median(columns["margin"]))
        measured.add("margin_median", means["margin_median", j] if median > 0 else (median, np.nan, np.nan), k)
        close = int((~np.isnan(columns["closeness"])).sum())
        measured.add("closeness", means["closeness", j], k, 0, close)
        for name in ("share_near_ties", "share_own_ties"):
            measured.add(name, means[name, j], k)
        for name, holds in (  # about these images alone, so without interval
            ("bound_holds", (overlap >= bound) & (overlap >= sharper)),
            ("bound_says_something", sharper > 0),
            ("margin_guaranteed", guaranteed > 0),
        ):
            measured.add(name, (holds[:, j].mean(), np.nan, np.nan), k)
        frames.append(pd.DataFrame({"image_id": image_ids, "k": k, **columns}))
    return pd.concat(frames)
