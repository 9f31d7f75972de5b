"""Which of several readers speaks for a side of the connector: the one that held-out training questions tell."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

ENOUGH = 30  # held-out questions of a category, from which it has a reader of its own choice

# What stands for each side: a reader of post is one of pre, through the frozen connector, and any may ignore the image.
# So on the held-out questions what is before the connector is never read worse than what is after it.
SIDES = {"guess": ("question",), "after": ("question", "post"), "before": ("question", "post", "pre")}


class Reader(NamedTuple):
    """Which reader: of which side, of which network, of which seed."""

    side: str
    network: str
    seed: int


def choose(held_out: pd.DataFrame, categories: Iterable[str], networks: list[str]) -> dict[str, dict[str, Reader]]:
    """category -> guess, after, before -> the reader with the fewest bits left on held-out questions.

    Parameters: held_out: side, network, seed, category and bits of each reader and question, bits finite. categories,
        that are asked for; one with fewer than ENOUGH held-out questions takes what is best over all. networks: those
        that may be chosen.
    """
    named = held_out[held_out["network"].isin(networks)]
    means = named.groupby(["side", "network", "seed", "category"], sort=False)["bits"].agg(["sum", "size"])
    overall = means.groupby(level=["side", "network", "seed"], sort=False).sum()
    found = {}
    for category in dict.fromkeys(categories):
        here = means[means.index.get_level_values("category") == category].droplevel("category")
        enough = not here.empty and here["size"].min() >= ENOUGH
        bits = (lambda table: table["sum"] / table["size"])(here if enough else overall)
        found[category] = {
            name: Reader(*bits[bits.index.get_level_values("side").isin(sides)].idxmin())
            for name, sides in SIDES.items()
        }
    return found


def gains(held_out: pd.DataFrame, networks: list[str]) -> dict[str, float]:
    """By how many bits the last network of the ladder is better on held-out questions than the best before it, after
    and before the connector; nan with one network. Negative: it is worse, and the ladder climbs no more."""
    found = {}
    for name in ("after", "before"):
        best = _best(held_out[held_out["side"].isin(SIDES[name])], networks)
        found[name] = float(np.nan if len(networks) < 2 else best[:-1].min() - best[-1])
    return found


def _best(held_out: pd.DataFrame, networks: list[str]) -> np.ndarray:
    """(networks,) fewest bits of any seed and side."""
    bits = held_out.groupby(["network", "side", "seed"])["bits"].mean().groupby(level="network").min()
    return bits.loc[networks].to_numpy()
