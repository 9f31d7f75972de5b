"""Which of several readers speaks for a side of the connector: the one that held-out training questions tell."""

from collections.abc import Iterable
from typing import NamedTuple

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
        sums = here if enough else overall
        bits = sums["sum"] / sums["size"]
        found[category] = {
            name: Reader(*bits[bits.index.get_level_values("side").isin(sides)].idxmin())
            for name, sides in SIDES.items()
        }
    return found


def may_read_more(held_out: pd.DataFrame, networks: list[str], within: float) -> dict[str, bool]:
    """Whether stronger readers may read more, after and before the connector.

    So it is if the last network of the ladder gains more than `within` bits on held-out questions over those before it
    (a larger one may gain again; of a single network nothing is known), or if the best reader leaves more than that
    less open on its training questions than on held-out ones: more of them could close the gap.

    Parameters: held_out, see `choose`, with training_bits of each reader.
    """
    found = {}
    for name in ("after", "before"):
        here = held_out[held_out["side"].isin(SIDES[name]) & held_out["network"].isin(networks)]
        means = here.groupby(["network", "side", "seed"])[["bits", "training_bits"]].mean()
        of_network = means["bits"].groupby(level="network").min().loc[networks].to_numpy()
        climbs = len(networks) < 2 or of_network[:-1].min() - of_network[-1] > within
        best = means.loc[means["bits"].idxmin()]
        # Not "more than": nan, where nothing was learned, tells nothing of how much could be.
        found[name] = bool(climbs or not best["bits"] - best["training_bits"] <= within)
    return found
