"""Means of margins over images, with intervals for the population that the images were drawn from."""

import numpy as np

from lossmap.measures.distortion import pair_changes
from lossmap.measures.halves import half_sample_errors, half_sample_interval, half_sample_size
from lossmap.measures.margins import neighbour_margins
from lossmap.measures.neighbours import nearest_neighbours
from lossmap.measures.similarity import order_agreement, trustworthiness
from lossmap.measures.statistics import MeanInterval

# Of what is not between 0 and 1. The margin shrinks as images are added, and its error in proportion, so halves are
# asked for its logarithm.
BOUNDS = {"closeness": (-np.inf, 1), "kendall": (-1, 1), "spearman": (-1, 1), "margin_median": (-np.inf, np.inf)}


def margin_means(margins, ks):
    """What margins come to: (measure, place of k) -> mean over images, nan where undefined.

    Parameters: margins: Margins of these ks. margin_median is the logarithm of a median.
    """
    values, n = {}, len(margins.epsilon)
    for j, k in enumerate(ks):
        median = np.median(margins.inside[:, j] - margins.outside[:, j])
        values["margin_median", j] = np.log(median) if median > 0 else np.nan
        if 2 * k < n:  # beyond, trustworthiness is not defined
            for name, ranks in (("trustworthiness", margins.ranks_before), ("continuity", margins.ranks_after)):
                values[name, j] = trustworthiness(ranks[:, :k], n).mean()
        close, lost = margins.closeness[:, j], margins.lost[:, j].sum()
        values["closeness", j] = close[~np.isnan(close)].mean() if (~np.isnan(close)).any() else np.nan
        for name in ("near_ties", "own_ties"):
            values[f"share_{name}", j] = getattr(margins, name)[:, j].sum() / lost if lost else np.nan
        if k > 1:
            order = order_agreement(margins.ranks_after[:, :k])
            values |= {(name, j): side.mean() for name, side in zip(("kendall", "spearman"), order, strict=True)}
    return values


def margin_intervals(before, after, margins, ks, confidence=0.95, seed=0):
    """`margin_means` with intervals by half-sampling: k in proportion, line and typical change anew in each half.

    Parameters: before (n, d1), after (n, d2): what the margins were made of.
    Returns: (measure, place of k) -> MeanInterval; bounds nan where there are too few images, or k is 1.
    """
    values, n = margin_means(margins, ks), len(before)
    size = half_sample_size(n)
    fewer = [min(max(min(k, 2), round(k * size / n)), size - 2) for k in ks]

    def measure(rows):
        one, two = before[rows], after[rows]
        lists = [nearest_neighbours(x, max(fewer), "cosine") for x in (one, two)]
        found = neighbour_margins(one, two, *lists, fewer, *line_and_typical_change(pair_changes(one, two)))
        found = margin_means(found, fewer)
        return np.array([found.get(name, np.nan) for name in values])

    errors = half_sample_errors(measure, n, seed) if size else np.full(len(values), np.nan)
    intervals = {
        (name, j): half_sample_interval(value, error, confidence, BOUNDS.get(name, (0, 1)))
        for ((name, j), value), error in zip(values.items(), errors, strict=True)
    }
    return {
        key: MeanInterval(*np.exp(interval)) if key[0] == "margin_median" else interval
        for key, interval in intervals.items()
    }


def line_and_typical_change(changes):
    """Of PairChanges: the line, and the median over pairs of the change beyond it."""
    beyond = np.sort(np.abs(changes.residual))
    return changes.line, beyond[(len(beyond) - 1) // 2]
