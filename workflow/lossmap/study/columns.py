"""What the columns of all tables mean: title, unit, direction, definition and layout, in one place.

A table's columns are named by what stands here, alone or followed by one of SUFFIXES: `overlap`, `overlap_low`. Numbers
in a name stand for any: `recall_at_5` is `recall_at_r`. Titles on pages may go on after a comma with what sets several
of a kind apart: "overlap, k = 100". Every share and rate is one of 1, not of 100; a correlation is partial or raw.
"""

import re
from typing import NamedTuple


class Column(NamedTuple):
    """How a column is shown, and what it means.

    title; unit, as the header shows it; higher: what a higher value means, "" where it is neither good nor bad; help;
    digits: decimal places; words: how values are written, where not as they are.
    """

    title: str
    unit: str
    higher: str
    help: str
    digits: int = 3
    words: dict[str, str] | None = None


# By what neighbours are near, as people read it.
METRICS = {"euclidean": "Euclidean distance", "cosine": "cosine"}
STAGES = {"pre": "before", "post": "after"}
SHARE, CORRELATION, BESIDE = "share, 0 to 1", "-1 to 1", "as the value beside it"
KEPT, LOST, UNSEEN = "more is preserved", "more is lost", "less is seen"
NAME = ""
COLUMNS = {
    # which row it is
    "dataset": Column("dataset", NAME, "", "data set of the study"),
    "model": Column("model", NAME, "", "model of the study"),
    "n": Column("images", "count", "", "images that the row is about"),
    "images": Column("images, all", "count", "", "images of the dataset"),
    "copies": Column("copies", "count", "", "images that equal another, by their pixels or their embeddings"),
    "classes": Column("classes", "count", "", "classes of the images"),
    "k": Column("k", "neighbours", "", "how many nearest neighbours are compared"),
    "metric": Column(
        "metric", NAME, "", "by what neighbours are near: Euclidean distance, or cosine, of mean-pooled embeddings",
        words=METRICS,
    ),
    "stage": Column("stage", NAME, "", "before (pre) or after (post) the connector", words=STAGES),
    "image_id": Column("image", NAME, "", "id of the image in its dataset"),
    # what is the same in many tables
    "chance": Column("chance", BESIDE, "", "what unrelated embeddings, or random choices, score"),
    "std": Column("std", BESIDE, "", "standard deviation over images"),
    # neighbours
    "overlap": Column(
        "overlap", SHARE, KEPT, "k-NN overlap ratio (KNOR): share of an image's k nearest neighbours that are preserved"
    ),
    "null": Column("by permutation", SHARE, "", "central range of the overlap of images that are paired at random"),
    "overlap_corrected": Column(
        "above chance", "0: chance, 1: all preserved", KEPT, "overlap less chance, over 1 less chance"
    ),
    "overlap_k": Column("overlap", SHARE, KEPT, "overlap of the k nearest neighbours"),
    "recall_at_r": Column("R@r", SHARE, "more is found", "queries with one of their class among the r nearest"),
    "recall_at_r_change": Column("R@r, change", SHARE, "more is found", "recall after the connector less that before"),
    "partial_r_overlap": Column(
        "partial rho", CORRELATION, "", "rank correlation of a query's recall with its overlap, given the size of its "
        "class and how often it is among the nearest of others: the finding", digits=2,
    ),
    "spearman_r_overlap": Column(
        "raw rho", CORRELATION, "", "Spearman's rank correlation of a query's recall with its overlap", digits=2
    ),
    "copies_of_other_class": Column(
        "copies of another class", "count", "", "copies left out whose class is not that of the image that they equal"
    ),
    "side": Column("side", NAME, "", "before or after the connector", words=STAGES),
    "rank": Column("rank", "1: first", "", "place in the order"),
    "shared": Column("on both sides", NAME, "", "whether the image is among the nearest on both sides"),
    "query": Column("query", NAME, "", "id of the image whose neighbours are shown"),
    "which": Column("which", NAME, "", "highest, median or lowest of all"),
    "hit": Column("hit", NAME, "", "whether the neighbour is one of the query's class, or one on both sides"),
    # geometry
    # loss and score
    # patches
    # the verdict and its ladder
    # comparisons
}  # fmt: skip
# What may follow a column's name -> what that is of it.
SUFFIXES = {
    "_low": "lower end of the interval",
    "_high": "upper end of the interval",
    "_std": "standard deviation over images",
    "_std_reported": "standard deviation over images, as the paper reports it",
    "_chance": "value by chance",
    "_reported": "value that the paper reports",
    "_paper_convention": "value computed as the paper's code does",
    "_p": "p-value of the test against 0",
    "_p_at_floor": "whether that p is an upper bound, the least that so many permutations can show",
    "_p_adjusted": "p-value after Benjamini and Hochberg; the family is all tests of the column",
}


def define(name: str, about: Column) -> None:
    """Add a column that a single exhibit has. Raises: ValueError if the name is taken by another."""
    if COLUMNS.setdefault(name, about) != about:
        raise ValueError(f"column {name}: means something else already: {COLUMNS[name].help}")


def column(name: str) -> Column | None:
    """What a column means, by its name in a CSV file; None if that is not known.

    Of one with a suffix, the column that it belongs to, with a help that says which part of it this is.
    """
    plain = _plain(name)
    if plain in COLUMNS:
        return COLUMNS[plain]
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        base = column(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if base:
            title = f"{base.title}, {suffix.removeprefix('_').replace('_', ' ')}"
            return base._replace(title=title, help=f"{SUFFIXES[suffix]}: {base.help}", words=None)
    return None


def titled(title: str) -> Column | None:
    """What a column of a page means, by its title, or its title up to the first comma; None if that is not known."""
    wanted = re.sub(r"^R@\d+", "R@r", title)
    exact = {about.title: about for about in reversed(COLUMNS.values())}  # of several, the first
    return exact.get(wanted) or exact.get(wanted.split(",")[0])


def _plain(name: str) -> str:
    """A column's name with letters for numbers: recall_at_5 -> recall_at_r."""
    name = re.sub(r"^(recall_at_|partial_r|spearman_r)\d+", lambda m: m[1] + ("r" if m[1].endswith("_") else ""), name)
    return re.sub(r"^overlap_k\d+", "overlap_k", name)
