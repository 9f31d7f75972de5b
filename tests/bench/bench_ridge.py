"""How fast ridge regression is: its time over that of the two matrix products that it can't do without.

    python tests/bench/bench_ridge.py [--quick] [--repeats 5] [--threads N]

Each repeat times X^T X and X^T Y in float32, each in one call, and right after them the whole of our ridge on the same
rows: sums and products of four fifths and of one fifth in blocks, the choice among all regularisers on the latter, the
weights. The table shows the median and the range of the repeats' ratios; wanted: at most 1.5.
"""

import argparse
import time

import numpy as np
import torch

from lossmap.reconstruct.linear import REGULARISERS, NormalEquations, fit_ridge

BLOCK = 16_384  # tokens that come from the store at once


def products(x, y):
    return x.T @ x, x.T @ y


def ridge(x, y):
    held_out, train = (NormalEquations(x.shape[1], y.shape[1]) for _ in range(2))
    cut = len(x) // 5
    for equations, rows in ((held_out, slice(None, cut)), (train, slice(cut, None))):
        for a, b in zip(x[rows].split(BLOCK), y[rows].split(BLOCK), strict=True):
            equations.update(a, b)
    return fit_ridge(train, held_out)


def seconds(work, *arguments):
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20,000 tokens, 512 -> 512")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    n, width = (20_000, 512) if options.quick else (100_000, 1024)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, width, generator=generator)
    y = x @ torch.randn(width, width, generator=generator) / width**0.5 + torch.randn(n, width, generator=generator)
    times = np.array([(seconds(products, x, y), seconds(ridge, x, y)) for _ in range(options.repeats + 1)][1:])
    ratios = times[:, 1] / times[:, 0]
    print(f"{n:,} tokens, {width:,} -> {width:,}, {len(REGULARISERS)} regularisers, {options.threads} threads")
    spread = f"({ratios.min():.2f} to {ratios.max():.2f})"
    product, own = np.median(times, axis=0)
    wanted = "" if options.quick else "  (wanted: at most 1.5)"  # a small one is mostly the decomposition
    print(f"ridge / its two products {np.median(ratios):5.2f} {spread}  {product:.2f} s, {own:.2f} s{wanted}")


if __name__ == "__main__":
    main()
