"""Exact nearest neighbours: mostly in float32, and in float64 wherever float32 cannot tell two items apart."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch

from lossmap.measures.checks import check_k, checked_matrix
from lossmap.measures.ranking import rank_in_full

METRICS = ("euclidean", "cosine")
SUMMED_AT_ONCE = 64  # features in one product, at least: rounding errors grow with it and with the number of products
COLUMNS = 1024  # items scored at once: sums of products stay in the cache
SPARE = 16  # candidates beyond k, so that a group of near-ties that straddles k usually fits


def rank_neighbours(x, k, metric="euclidean", block=None, device="cpu", name="x"):
    """Each row's nearest other rows, nearest first, and which of them are equally near.

    Parameters: x (n, d), real; float16 and float32 are used as they are, anything else as float64. k, 1 <= k < n.
        metric: "euclidean"; or "cosine", inner product of the rows scaled to unit length, largest first (the
        paper's inner-product index on normalised embeddings), found as the smallest distance between unit vectors,
        which is the same order. block: queries searched at once by a thread (PyTorch's number of threads on the CPU,
        one on a GPU); extra memory is about 4 n d + 8 n block threads bytes, by default 4 n d and some 0.4 GB.
        device: where to compute. name: what messages call x.
    Returns: Ranking, good for every k up to this one. Exact: the order of float64 distances (difference, square, sum),
        whatever the block size, the device and the number of threads. Of equal rows only the first is searched, so
        that copies, and even a constant x, cost nothing.
    Raises: ValueError if x is not a non-empty 2-d array of finite numbers within +-1e150 (the message names the first
        bad row), k is out of range, the metric is unknown, or a row has length zero under "cosine".
    Source: Li et al. 2025, arXiv:2509.11986, N_k of eq. 6, without the item itself. The bound on rounding errors holds
        for every order of summation: Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1.
    """
    x = checked_matrix(x, name)
    check_k(k, len(x))
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}; wanted one of {', '.join(METRICS)}")
    if block is not None and block < 1:
        raise ValueError(f"block is {block}; wanted at least 1")
    if metric == "cosine" and (zero := ~x.any(axis=1)).any():
        raise ValueError(f"{name}: row {zero.argmax()} has length zero, so it has no direction to compare")
    twin = first_equal_rows(x)
    distinct = np.flatnonzero(twin == np.arange(len(x)))
    if len(distinct) == 1:
        return rank_in_full(np.empty((1, 0), dtype=np.int64), np.empty((1, 0), dtype=bool), twin)
    k = min(k, len(distinct) - 1)
    return rank_in_full(*_search(x if len(distinct) == len(x) else x[distinct], k, metric, block, device), twin)


def nearest_neighbours(x, k, metric="euclidean", block=None, device="cpu", name="x"):
    """Indices of each row's k nearest other rows, nearest first: `rank_neighbours` with ties to the lower index.

    Returns: (n, k) int64; a row is never its own neighbour. The list for a smaller k is the beginning of the list for a
        larger one.
    """
    return rank_neighbours(x, k, metric, block, device, name).first(k)


def _search(x, k, metric, block, device):
    """Rows that all differ -> (n, w) their nearest, to the end of the tie at place k, then -1; and (n, w) bool: whether
    each is as far as the one before it."""
    n = len(x)
    device = torch.device(device)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    block = block or min(512, -(-n // threads), max(1, 2**26 // n // threads))
    neighbours = torch.empty((n, k), dtype=torch.int64)
    tied = torch.zeros((n, k), dtype=torch.bool)
    beyond = []  # rows whose k-th place is shared with items beyond it, and those items

    def search(rows, kept, dtype):
        found, same, settled = _rank(points, rows, k, kept, dtype)
        place = rows.cpu()
        neighbours[place], tied[place] = found[:, :k].cpu(), same[:, :k].cpu()
        shared = same[:, k:].cumprod(1).bool() & settled[:, None]
        if shared.any():
            more = found[:, k:].masked_fill(~shared, -1)[:, : int(shared.sum(1).max())]
            used = shared[:, 0]
            beyond.append((place[used.cpu()].numpy(), more[used].cpu().numpy()))
        return rows[~settled]

    with _full_precision_products(), _one_thread_each(threads) as each:
        points = _Points(x, metric, device, each)
        queries = torch.arange(n, device=device).split(block)
        left = torch.cat(each(lambda rows: search(rows, min(k + SPARE, n - 1), torch.float32), queries))
        # Whole rows in float64 where near-ties reach beyond the spare candidates: tight clusters, outliers.
        each(lambda rows: search(rows, n - 1, torch.float64), left.split(min(block, max(1, 2**21 // n))))
    neighbours, tied = neighbours.numpy(), tied.numpy()
    if beyond:
        width = max(more.shape[1] for _, more in beyond)
        neighbours = np.pad(neighbours, ((0, 0), (0, width)), constant_values=-1)
        tied = np.pad(tied, ((0, 0), (0, width)))
        for rows, more in beyond:
            neighbours[rows, k : k + more.shape[1]] = more
            tied[rows, k : k + more.shape[1]] = more >= 0
    return neighbours, tied


class _Points:
    """The rows: as given (float64), centred (float32 or float64), and how far rounding can move their scores.

    The score of item j for query i is |c_j|^2 / 2 - c_i . c_j, half the squared distance less a constant of the query.
    c is the row less the mean of all: distances do not change, and a large common offset no longer swamps them.
    """

    def __init__(self, x, metric, device, each):
        self.x = torch.from_numpy(x).to(device)
        self.n, self.d = x.shape
        self.summed = max(SUMMED_AT_ONCE, 2 ** round(np.log2(self.d) / 2))
        self.length = None
        blocks = torch.arange(self.n, device=device).split(max(1, 2**18 // self.d))
        if metric == "cosine":
            lengths = torch.cat(each(lambda rows: _row_sums(self.given(rows).square_()).sqrt_(), blocks))
            self.length = lengths[:, None]
        self.mean = sum(each(lambda rows: self.given(rows).sum(0), blocks)) / self.n
        # A power of two, so exact; it keeps float32 from overflowing.
        largest = 1.0 if metric == "cosine" else max(x.max(), -x.min())
        self.scale = 2.0 ** -float(np.frexp(float(largest))[1])
        self.single = torch.empty((self.n, self.d), dtype=torch.float32, device=device)
        self.half_squares = torch.empty(self.n, dtype=torch.float64, device=device)

        def prepare(rows):
            centred = self.centred(rows)
            self.single[rows] = centred.float()
            self.half_squares[rows] = centred.square_().sum(1) / 2

        each(prepare, blocks)

    def given(self, rows):
        values = self.x.index_select(0, rows).double()
        return values if self.length is None else values / self.length[rows]

    def centred(self, rows):
        return (self.given(rows) - self.mean).mul_(self.scale)

    def errors(self, dtype):
        """(n,) and (n,): a computed score of item j for query i is off by at most of_query[i] + of_item[j].

        A sum of m products, however ordered, is off by at most m u |a||b| <= m u (|a|^2 + |b|^2) / 2; each further sum
        added to it costs one rounding of the total. The slack is for inputs, norms, and the deciding distances.
        Assumes that addmm sums its products before it adds them to the scores, as blocked BLAS routines do.
        """
        unit, slack, floor = (2.0**-24, 8, 1e-30) if dtype == torch.float32 else (2.0**-53, 64, 1e-290)
        sums = -(-self.d // self.summed)
        of_query = 1.01 * unit * (min(self.d, self.summed) + sums + slack) * self.half_squares + floor
        return of_query, of_query + 1.01 * unit * (sums + 4) * self.half_squares

    def lower_scores(self, rows, dtype):
        """(len(rows), n): scores less of_item[j]; a row's own column is infinite."""
        start = (self.half_squares - self.errors(dtype)[1]).to(dtype)
        scores = torch.empty((len(rows), self.n), dtype=dtype, device=self.x.device)
        queries = self.single[rows] if dtype == torch.float32 else self.centred(rows)
        for items in torch.arange(self.n, device=self.x.device).split(COLUMNS):
            where = slice(int(items[0]), int(items[-1]) + 1)
            out = scores[:, where]
            out.copy_(start[where].expand_as(out))
            others = self.single[where] if dtype == torch.float32 else self.centred(items)
            for a, b in zip(queries.split(self.summed, 1), others.split(self.summed, 1), strict=True):
                out.addmm_(a, b.T, alpha=-1)
        scores[torch.arange(len(rows), device=rows.device), rows] = torch.inf
        return scores

    def squared_distances(self, i, j):
        """(p,) float64, between rows as given: elementwise steps in a fixed order, so the same bits everywhere."""
        step = max(1, 2**17 // self.d)
        pairs = zip(i.split(step), j.split(step), strict=True)
        parts = [_row_sums(self.given(a).sub_(self.given(b)).square_()) for a, b in pairs]
        return torch.cat(parts) if parts else self.mean.new_empty(0)


def _rank(points, rows, k, kept, dtype):
    """The nearest items of each row, whether each is as far as the one before it, and whether the first k, and all that
    tie with the k-th, are certain. (b, kept) int64 and bool, (b,) bool; only to the end of that tie do they mean much.

    Each score lies between `lower` and `upper`. Where the upper ends of all items so far stay below the next lower end,
    the order is certain; between two such gaps lies a run of near-ties, put in order by the float64 distances.
    """
    lower, items = smallest(points.lower_scores(rows, dtype), kept)
    of_query, of_item = (error.to(dtype) for error in points.errors(dtype))
    upper = lower + 2 * (of_query[rows, None] + of_item[items])
    gap = torch.ones_like(lower, dtype=torch.bool)  # gap[:, t]: nothing up to t can lie behind anything after t
    gap[:, :-1] = upper.cummax(1).values[:, :-1] < lower[:, 1:]
    gap[:, -1] = kept == points.n - 1  # else an item that was not kept could belong before the last one
    settled = gap[:, k - 1 :].any(1)
    run = gap.cumsum(1) - gap.int()
    alone = gap.clone()
    alone[:, 1:] &= gap[:, :-1]
    near_ties = ~alone & (run <= run[:, k - 1 : k]) & settled[:, None]
    row, place = near_ties.nonzero(as_tuple=True)
    tied = items[row, place]
    distances = points.squared_distances(rows[row], tied)
    order = tied.argsort(stable=True)
    order = order[distances[order].argsort(stable=True)]
    runs = row * kept + run[row, place]
    order = order[runs[order].argsort(stable=True)]
    items[row, place] = tied[order]
    same = torch.zeros_like(near_ties)
    distances = distances[order]
    same[row[1:], place[1:]] = (distances[1:] == distances[:-1]) & (runs[1:] == runs[:-1])
    return items, same, settled


def smallest(scores, count):
    """Values and columns of each row's `count` smallest, smallest first. scores (b, n); both (b, count).

    In two stages, for topk is slow on long rows: the groups with the smallest minima hold the smallest values.
    """
    columns = scores.shape[1]
    group = 2 ** round(np.log2(columns / count) / 2)
    if group < 4:
        return scores.topk(count, largest=False)
    groups = columns // group
    minima = scores[:, : groups * group].unflatten(1, (group, groups)).amin(1)
    best = minima.topk(count, largest=False, sorted=False).indices
    members = torch.arange(group, device=scores.device) * groups
    rest = torch.arange(groups * group, columns, device=scores.device).expand(len(scores), -1)
    candidates = torch.cat([(best[:, :, None] + members).flatten(1), rest], 1)
    values, place = scores.gather(1, candidates).topk(count, largest=False)
    return values, candidates.gather(1, place)


def _row_sums(x):
    """Sum of each row in one fixed order, folding the second half onto the first. Overwrites x."""
    while x.shape[1] > 1:
        half = (x.shape[1] + 1) // 2
        x[:, : x.shape[1] - half] += x[:, half:]
        x = x[:, :half]
    return x[:, 0]


def first_equal_rows(x):
    """(n,) index of the first row that equals each row, bit for bit. x (n, d), C-contiguous."""
    rows = x.view(np.dtype((np.void, x.shape[1] * x.itemsize)))[:, 0]
    order = rows.argsort(kind="stable")
    steps = range(1, len(x), 4096)  # a few rows at a time: no sorted copy of everything
    repeats = [rows[order[s : s + 4096]] == rows[order[s - 1 : s + 4095][: len(x) - s]] for s in steps]
    new = ~np.concatenate([[False], *repeats])
    first = np.empty(len(x), dtype=np.int64)
    first[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(x)), 0))]
    return first


@contextmanager
def _full_precision_products():
    """No TF32 or bfloat16 inside: the error bound is that of float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _one_thread_each(threads):
    """A map over blocks, each on one thread from beginning to end: no small operation waits for other threads."""
    if threads == 1:
        yield lambda work, blocks: [work(rows) for rows in blocks]
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield lambda work, blocks: list(pool.map(work, blocks))
    finally:
        torch.set_num_threads(threads)  # a part of the setting is shared by all threads
