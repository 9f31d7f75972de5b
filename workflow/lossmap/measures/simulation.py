"""How often intervals of measures of neighbours hold what they are about: samples of images from known populations."""

from typing import NamedTuple

import numpy as np

from lossmap.measures.correlation import neighbour_spearman
from lossmap.measures.dimension import intrinsic_dimension
from lossmap.measures.distortion import pair_changes
from lossmap.measures.index_ablation import whitened
from lossmap.measures.margin_means import line_and_typical_change, margin_intervals
from lossmap.measures.margins import neighbour_margins
from lossmap.measures.neighbours import rank_neighbours
from lossmap.measures.overlap import ranking_overlap
from lossmap.measures.retrieval import recall_at

RECALL = (1, 5)
CONFIDENCE = 0.95


class Sample(NamedTuple):
    """Embeddings before, after one connector and after another, (n, d) each, and classes (n,)."""

    before: np.ndarray
    after: np.ndarray
    other: np.ndarray
    labels: np.ndarray


def gaussian_channel(n, rng):
    """Normal embeddings; connectors add noise of 0.6 and 0.8 standard deviations. 30 classes by direction."""
    x = rng.normal(size=(n, 8))
    directions = np.random.default_rng(11).normal(size=(6, 30))
    labels = (x[:, :6] + 0.3 * rng.normal(size=(n, 6))) @ directions
    return Sample(x, x + 0.6 * rng.normal(size=x.shape), x + 0.8 * rng.normal(size=x.shape), labels.argmax(1))


def clusters(n, rng):
    """20 clusters of very different sizes with heavy tails; connectors map 16 dimensions to 8 and add such noise."""
    fixed = np.random.default_rng(5)
    centres, sizes, maps = fixed.normal(size=(20, 16)), fixed.dirichlet(np.full(20, 0.7)), fixed.normal(size=(2, 16, 8))
    labels = rng.choice(20, n, p=sizes)
    x = centres[labels] + 0.5 * rng.standard_t(3, size=(n, 16))
    after = [x @ side + noise * rng.standard_t(4, size=(n, 8)) for side, noise in zip(maps, (0.8, 1.2), strict=True)]
    return Sample(x, *after, labels)


def finite_population(before, after, other):
    """sample(n, rng) of given images, without replacement. Classes: 30 directions of the first principal components."""
    centred = before.astype(np.float64) - before.mean(axis=0)
    left = np.linalg.svd(centred, full_matrices=False)[0][:, :6]
    labels = (left @ np.random.default_rng(11).normal(size=(6, 30))).argmax(1)
    whole = Sample(before, after, other, labels)

    def sample(n, rng):
        rows = np.sort(rng.permutation(len(before))[:n])
        return Sample(*(side[rows] for side in whole))

    return sample


def intervals_of(sample, ks, seed, margins=True):
    """Every measure of neighbours of a sample: (measure, k, or 0 where it has none) -> (value, low, high).

    Parameters: ks: those that a sample of this size allows. margins: whether also what takes half-samples, which are
        most of the work.
    """
    most = max(ks)
    before, after, other = (rank_neighbours(side, most) for side in sample[:3])
    found = {}
    hits = [{r: recall_at(side, sample.labels, r) for r in RECALL} for side in (before, after)]
    for r in RECALL:
        pre, post = (side[r] for side in hits)
        found |= {("recall before", r): pre.share_interval(CONFIDENCE)}
        found |= {("recall after", r): post.share_interval(CONFIDENCE)}
        found |= {("recall, after - before", r): (post - pre).interval(CONFIDENCE)}
    white = [rank_neighbours(whitened(side), most) for side in sample[:2]]
    cosine = [rank_neighbours(side, most, "cosine") for side in sample[:2]]
    for k in ks:
        overlap = ranking_overlap(before, after, k, parts=True)
        found["overlap", k] = overlap.interval(CONFIDENCE)
        found["overlap by cosine", k] = ranking_overlap(*cosine, k).interval(CONFIDENCE)
        found["overlap, whitened", k] = ranking_overlap(*white, k).interval(CONFIDENCE)
        found["overlap, one connector - another", k] = (overlap - ranking_overlap(before, other, k)).interval(
            CONFIDENCE
        )
        for name, side in zip(("before", "after"), hits, strict=True):
            relation = neighbour_spearman(side[max(RECALL)], overlap, CONFIDENCE)
            found[f"rho of R@5 {name} with overlap", k] = (relation.rho, relation.low, relation.high)
    for name, x, ranking in (("before", sample.before, before), ("after", sample.after, after)):
        found[f"intrinsic dimension {name}", 0] = intrinsic_dimension(x, ranking.first(2), CONFIDENCE).interval
    if margins:
        lists = [side.first(most) for side in cosine]
        both = neighbour_margins(*sample[:2], *lists, ks, *line_and_typical_change(pair_changes(*sample[:2])))
        means = margin_intervals(*sample[:2], both, ks, CONFIDENCE, seed)
        found |= {(name, ks[j]): interval for (name, j), interval in means.items()}
    return found


def coverage(found, part=0.0):
    """How often intervals hold the mean of the values of all samples, which stands for the truth at this n.

    Parameters: found (samples, 3): value, low, high. part: the share of a finite population that a sample is;
        intervals, which are about an infinite one, are made shorter by sqrt(1 - part).
    Returns: dict: value; spread, the standard deviation of values between samples (infinite population);
        half_width, mean, of intervals; wider, half_width over 1.96 spread; coverage; samples where it is defined.
    """
    found = np.asarray(found, dtype=np.float64)
    value, low, high = found[~np.isnan(found).any(axis=1)].T
    if len(value) < 2:
        names = ("value", "spread", "half_width", "wider", "coverage")
        return dict.fromkeys(names, np.nan) | {"samples": len(value)}
    short = np.sqrt(1 - part)
    truth, spread = value.mean(), value.std(ddof=1) / short
    holds = (value - short * (value - low) <= truth) & (truth <= value + short * (high - value))
    half = ((high - low) / 2).mean()
    wider = half / (1.96 * spread) if spread else np.nan
    row = {"value": truth, "spread": spread, "half_width": half, "wider": wider}
    return row | {"coverage": holds.mean(), "samples": len(value)}
