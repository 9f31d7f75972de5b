"""How long the measures of geometry take, as a multiple of the neighbour search that they rest on, in the same run.

    python tests/bench/bench_geometry.py [--quick] [--repeats 3] [--threads 1]

Each repeat times the search of both sides, then every measure, one right after the other, so that whatever else the
machine does falls on all; the table shows medians and the range of the repeats' ratios. The measures need the search by
distance and by inner product; the ratio to one of the two is shown as well. Wanted: at most 5.
"""

import argparse
import time

import numpy as np
import torch

from lossmap.measures.dimension import effective_rank, intrinsic_dimension
from lossmap.measures.distortion import pair_changes, pair_quantiles, unit_rows
from lossmap.measures.margins import neighbour_margins
from lossmap.measures.neighbours import nearest_neighbours
from lossmap.measures.procrustes import align, shuffled_error, unexplained_shares
from lossmap.measures.random_projection import dimension_curve, draws, kept_by_projection
from lossmap.measures.similarity import debiased_cka, order_agreement, trustworthiness

KS, QUANTILES, QUERIES = [10, 50, 100], [0.1, 0.5, 0.9], 500


def embeddings(n, d):
    """Clustered embeddings and what a bent, lossy connector makes of them."""
    rng = np.random.default_rng(0)
    before = rng.standard_normal((n, 64), dtype=np.float32) @ rng.standard_normal((64, d), dtype=np.float32)
    before += rng.standard_normal((n, d), dtype=np.float32)
    return before, np.tanh(before @ rng.standard_normal((d, d), dtype=np.float32) / (8 * np.sqrt(d)))


class Clock:
    def __init__(self):
        self.seconds = {}

    def __call__(self, name, work, *arguments):
        start = time.perf_counter()
        result = work(*arguments)
        self.seconds[name] = self.seconds.get(name, 0) + time.perf_counter() - start
        return result


def measure(before, after, cosine, euclidean, clock):
    """Everything that the step measure_geometry measures."""
    rng, n = np.random.default_rng(0), len(before)
    laid = clock("Procrustes", align, before, after)
    clock("Procrustes, by chance", shuffled_error, laid, rng)
    clock("shares of variance", unexplained_shares, before, after, rng)
    clock("CKA", debiased_cka, before, after)
    for x, nearest in ((before, euclidean[0]), (after, euclidean[1])):
        clock("effective rank", effective_rank, x)
        clock("intrinsic dimension", intrinsic_dimension, x, nearest)
    changes = clock("distortion of pairs", pair_changes, before, after)
    for values in (np.abs(changes.change), np.abs(changes.residual), changes.ratio):
        clock("distortion of pairs", pair_quantiles, values, changes.first, changes.second, [0.05, 0.5, 0.95])
    found = clock("margins and ranks", neighbour_margins, before, after, *cosine, KS, changes.line, 0.01)
    for k in KS:
        clock("trust, order", trustworthiness, found.ranks_before[:, :k], n)
        clock("trust, order", order_agreement, found.ranks_after[:, :k])
    unit, queries = unit_rows(before, "before"), np.arange(min(QUERIES, n))
    for quantile in QUANTILES:
        curve = clock("random_projection", dimension_curve, found.nearest, quantile)
        for k in KS:
            clock("projections", kept_by_projection, unit, cosine[0], [k], curve.value[k - 1], queries, rng)
    for m in (2**i for i in range(1, after.shape[1].bit_length())):
        for _ in range(draws(m)):
            clock("projections", kept_by_projection, unit, cosine[0], KS, m, queries, rng)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="n = 1,000 and d = 256")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    n, d = (1000, 256) if options.quick else (5000, 1024)
    before, after = embeddings(n, d)
    nearest_neighbours(before[:500], 100)
    repeats = []
    for _ in range(options.repeats):
        clock = Clock()
        lists = {
            metric: [clock(f"search, {metric}", nearest_neighbours, x, 100, metric) for x in (before, after)]
            for metric in ("cosine", "euclidean")
        }
        measure(before, after, lists["cosine"], lists["euclidean"], clock)
        repeats.append(clock.seconds)
    print(f"n={n:,} d={d:,} k={KS[-1]}, {options.threads} threads, median of {len(repeats)} repeats")
    for name in repeats[0]:
        print(f"{name:<24} {np.median([seconds[name] for seconds in repeats]):6.2f} s")
    searches = [name for name in repeats[0] if name.startswith("search")]
    for against in (searches, searches[1:]):
        ratios = [
            sum(value for name, value in seconds.items() if name not in searches)
            / sum(seconds[name] for name in against)
            for seconds in repeats
        ]
        spread = f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"all measures / {' + '.join(against)}, both sides: {spread}")


if __name__ == "__main__":
    main()
