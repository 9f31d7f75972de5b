"""Kernel density of sorted values, where a margin lies: how many others are as near."""

import numpy as np

REACH = 8  # bandwidths beyond which a Gaussian kernel adds nothing: exp(-32)


def lower_density(values, inside, outside):
    """(b,) the lower of two Gaussian kernel densities of ascending values (b, m), bandwidth by Scott's rule."""
    m = values.shape[1]
    width = (values.std(axis=1, ddof=1) * m**-0.2)[:, None]
    lowest = int((values < outside[:, None] - REACH * width).sum(axis=1).min())
    lower = np.full(len(values), np.inf)
    for place in (inside, outside):
        with np.errstate(invalid="ignore", divide="ignore"):
            kernels = np.exp(((values[:, lowest:] - place[:, None]) / width) ** 2 / -2)
            density = kernels.sum(1) / (m * np.sqrt(2 * np.pi) * width[:, 0])
        lower = np.minimum(lower, np.where(width[:, 0] > 0, density, np.inf))
    return lower
