"""Which images of a training set train, and which are held out."""

from dataclasses import dataclass

import numpy as np

from lossmap.errors import LossmapError
from lossmap.measures.seeds import seed_for
from lossmap.reconstruct.sizes import share_sizes


@dataclass(frozen=True)
class Split:
    """Sorted image numbers: those held out, and those of each share in percent. A share holds every smaller one."""

    held_out: np.ndarray
    train: dict[int, np.ndarray]


def split_images(n: int, held_out: float, shares: list[int], seed: int) -> Split:
    """Hold out some of n images and cut nested shares from the rest.

    Parameters: held_out in (0, 1), the part of all images that trains nothing and chooses (when to stop, how strongly
        to regularise). shares, percentages 1 to 100 of the images that are left. The same seed, the same split.
    Raises: LossmapError if a number is out of range, or a part would have no image.
    """
    if not 0 < held_out < 1:
        raise LossmapError(f"held_out is {held_out:g}; wanted a part of the training images between 0 and 1, like 0.2.")
    if not shares or len(set(shares)) != len(shares) or not all(1 <= share <= 100 for share in shares):
        raise LossmapError(f"shares is {shares}; wanted different percentages from 1 to 100, like [25, 100].")
    order = np.random.default_rng(seed_for(seed, "split_images")).permutation(n)
    count, sizes = share_sizes(n, held_out, shares)
    rest = order[count:]
    parts = {share: rest[:size] for share, size in sizes.items()}
    counts = {"the held-out part": count} | {f"a share of {share}%": len(part) for share, part in parts.items()}
    for name, images in counts.items():
        if not images:
            raise LossmapError(
                f"The training set has {n} images, which leaves none for {name} (held_out: {held_out:g}). "
                "Give the training set more images or ask for larger parts."
            )
    return Split(np.sort(order[:count]), {share: np.sort(part) for share, part in parts.items()})
