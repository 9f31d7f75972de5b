"""Retrieval of images of the same class by their embeddings."""

import numpy as np
from scipy import sparse
from scipy.special import gammaln

from lossmap.measures.influence import PerItem
from lossmap.measures.ranking import MOST_PARTS, blocks

# Of the squares of what neighbours add, this share is taken out: a hit rests on one or few neighbours, so that with all
# of it recall's interval would cover below 90% at r = 5, with none of it near 100% (docs/coverage.md).
SHARED = 0.5


def recall_at(ranking, labels, r):
    """Whether any of a query's r nearest neighbours is of its class, one query per item (Recall@r).

    Parameters: ranking: Ranking; every item is a query, and its list leaves it out, so the gallery is everything else.
        labels (n,): the class of each item, numbers or strings. r: at most what the ranking was made for.
    Returns: PerItem, values 1 = found, 0 = not; where the last places tie, the probability over random orders of what
        ties. The mean is Recall@r. An item whose class has no other item cannot be found and counts as 0, as in the
        usual protocol, where every test image is a query. (CUB-200-2011 has no such image.) As a neighbour, an item
        counts where a query would be found by it alone or not at all, against what stands in its place otherwise: one
        of the query's class as often as among all such neighbours.
    Raises: ValueError if there is not one label for each item, a label is missing (None or nan), or r is out of range.
    Source: Recall@K of Jegou et al. 2011 as used on CUB-200-2011 since Song et al. 2016, arXiv:1511.06452.
    """
    labels, n = np.asarray(labels), len(ranking.items)
    if labels.shape != (n,):
        raise ValueError(f"labels: has shape {labels.shape}; wanted ({n},), one for each neighbour list")
    ranking.check(r, "r")
    missing = np.array([label is None or label != label for label in labels.tolist()], dtype=bool)
    if missing.any():
        raise ValueError(f"labels: {missing.sum()} of {len(labels)} are missing; the first is row {missing.argmax()}")
    _, classes = np.unique(labels, return_inverse=True)
    hits, alone, misses, entries = np.empty(n), np.zeros(n), np.zeros(n), []
    keep = ranking.entries(r).sum() <= MOST_PARTS
    for rows in blocks(ranking.entries(r)):
        shares = ranking.shares(r, rows).tocoo()
        row, item, share = shares.row, shares.col, shares.data
        match = (classes[item] == classes[rows][row]).astype(np.float64)
        count = rows.stop - rows.start
        hits[rows] = _found(row, share, match, r, count)
        others = np.bincount(row, share * match, count)[row] - share * match
        weight = share * np.clip(1 - others, 0, 1)  # what this neighbour decides
        alone += np.bincount(item, weight * match, n)
        misses += np.bincount(item, weight * (1 - match), n)
        if keep:
            entries.append((row + rows.start, item, weight, match))
    decided = alone.sum() + misses.sum()
    usual = alone.sum() / decided if decided else 0.0
    influence = hits - hits.mean() + alone * (1 - usual) - misses * usual
    if not keep:
        return PerItem(hits, influence)
    row, item, weight, match = (np.concatenate(part) for part in zip(*entries, strict=True))
    parts = sparse.csr_array((weight * (match - usual), (row, item)), shape=(n, n))
    return PerItem(hits, influence, parts, SHARED)


def _found(row, share, match, r, count):
    """(count,): the probability that one of the same class is among the r. row, share, match: entries of the lists."""
    tied = share < 1
    certain = np.bincount(row, ~tied, count)
    free, members = r - certain, np.bincount(row, tied, count)
    same = np.bincount(row, tied * match, count)
    other = members - same
    none = np.zeros(count)
    possible = (other >= free) & (np.bincount(row, ~tied * match, count) == 0)
    a, b, s = other[possible], members[possible], free[possible]
    # All free places go to others: C(other, free) / C(members, free).
    none[possible] = np.exp(gammaln(a + 1) - gammaln(a - s + 1) - gammaln(b + 1) + gammaln(b - s + 1))
    return 1 - none
