"""How fast and how large the neighbour search is: ratios of times taken side by side in one run, and peak memory.

    python tests/bench/bench_neighbours.py [--quick] [--repeats 5] [--memory-seconds 60]

Each repeat times one product X X^T, the search, and faiss.IndexFlatL2, one right after the other, so that whatever
else the machine does falls on all three; the table shows the median and the range of the repeats' ratios. All cores are
used. Memory is that of a fresh process at n = 118,000: a full search there takes minutes, so it is stopped after
--memory-seconds; blocks are alike, so the first ones show the peak.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import torch

from lossmap.measures.neighbours import nearest_neighbours

SEARCH = """
import sys
import numpy as np
from lossmap.measures.neighbours import nearest_neighbours
rng = np.random.default_rng(0)
n, d = int(sys.argv[1]), int(sys.argv[2])
x = np.empty((n, d), dtype=np.float32)
for row in x:
    row[:] = rng.standard_normal(d, dtype=np.float32)
nearest_neighbours(x[:1000], 100)
print("ready", flush=True)
nearest_neighbours(x, 100)
"""


def gaussian(n, d):
    return np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)


def clustered(n, d):
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((100, d), dtype=np.float32)
    return centres[rng.integers(0, 100, n)] + 0.3 * rng.standard_normal((n, d), dtype=np.float32)


def seconds(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def compare(x, k, repeats):
    """(repeats, 3) seconds of product, search and faiss, and the share of entries where the two lists are the same."""
    tensor = torch.from_numpy(x)
    index = faiss.IndexFlatL2(x.shape[1])
    index.add(x)
    nearest_neighbours(x[:1000], k)
    times = []
    for _ in range(repeats):
        product, _ = seconds(lambda: tensor @ tensor.T)
        search, ours = seconds(lambda: nearest_neighbours(x, k))
        other, (_, theirs) = seconds(lambda: index.search(x, k + 1))
        times.append((product, search, other))
    return np.array(times), (ours == theirs[:, 1:]).mean()


def memory(n, d, limit):
    """Peak memory in MB of a process before and during the search, and whether that ended in time (Linux)."""
    command = [sys.executable, "-c", SEARCH, str(n), str(d)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        status = Path(f"/proc/{process.pid}/status")

        def peak():
            lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
            return int(lines[0].split()[1]) / 1024 if lines else 0.0  # nothing once the process has ended

        process.stdout.readline()
        before = highest = peak()
        end = time.monotonic() + limit
        while process.poll() is None and time.monotonic() < end:
            highest = max(highest, peak())
            time.sleep(0.1)
        ended = process.poll() is not None
        process.kill()
    if ended and process.returncode:
        raise SystemExit(f"the search at n={n} failed")
    return before, highest, ended


def row(ratios):
    return f"{np.median(ratios):5.2f} ({ratios.min():.2f} to {ratios.max():.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="n = 2,000 and n = 20,000 for memory")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-seconds", type=float, default=60)
    options = parser.parse_args()
    n, large, d, k = (2000, 20_000, 256, 100) if options.quick else (10_000, 118_000, 1024, 100)
    print(f"n={n:,} d={d:,} k={k} float32, {torch.get_num_threads()} threads, median (range)")
    columns = [f"{name:>24}" for name in ("search/product", "faiss/search", "faiss/product")]
    print(f"{'data':10} {' '.join(columns)} {'product, s':>11} {'same as faiss':>14}")
    for data in (gaussian, clustered):
        times, same = compare(data(n, d), k, options.repeats)
        product, search, other = times.T
        ratios = [row(search / product), row(other / search), row(other / product)]
        print(
            f"{data.__name__:10} "
            + " ".join(f"{r:>24}" for r in ratios)
            + f" {np.median(product):>11.2f} {same:>14.5%}"
        )
    before, highest, ended = memory(large, d, options.memory_seconds)
    how = "complete" if ended else f"stopped after {options.memory_seconds:g} s"
    print(
        f"peak memory, n={large:,} d={d:,}: {before:,.0f} MB with the input, {highest - before:,.0f} beyond it ({how})"
    )


if __name__ == "__main__":
    main()
