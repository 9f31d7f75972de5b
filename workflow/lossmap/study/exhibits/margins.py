"""Why neighbours change: near-ties, or images moved across a clear margin."""

import pandas as pd

from lossmap.study.captions import POPULATION
from lossmap.study.exhibit import of_all
from lossmap.study.long_tables import long_table, numbers_of_neighbours, wide
from lossmap.study.specs import WithConfidence
from lossmap.study.tables import about_copies, cells, interval

TITLE, TOPIC, PAPER = "Were lost neighbours near-ties, or moved across a clear margin?", "neighbours", None
ABOUT = """
**Is a neighbour lost because the connector moved it, or because it was a near-tie?** Each lost neighbour (by cosine
of mean-pooled embeddings) is compared with the image that took its place. If their cosines before the connector
differed by no more than two standard deviations of what a random projection to the connector's output width would do
to that difference, it was a *near-tie*: a projection could have swapped them, too, and the overlap ratio makes much
of little. Otherwise it was *moved across a clear margin*, and not for want of room: that is the connector's doing.
*Closeness preserved* says the same without a threshold: how near the neighbours after were before, from 0, as near as
random images (dashed), to 1, as near as the neighbours before. Bands are intervals for the population of which the
images are a sample."""
OF_NEIGHBOURS = (
    *("mutual_neighbours", "share_near_ties", "share_moved", "share_own_ties", "closeness", "margin_median"),
    *("bound_holds", "bound_says_something"),
)
OF_PAIRS = (
    *("cosine_change_q50", "cosine_residual_q50", "cosine_residual_q95"),
    *("distance_ratio_q01", "distance_ratio_q99"),
)
COLUMNS = ("dataset", "n", "images", "copies", "model", "measure", "k", "value", "chance")
SHOWN = ["dataset", "model", "k", "mutual_neighbours", "share_near_ties", "share_moved", "closeness", "n"]
NOTE = (
    "Neighbours by cosine of mean-pooled embeddings; overlap (k-NN overlap ratio, KNOR): the share of them that is "
    "preserved (Figure 3 shows it by Euclidean distance). Near-ties, moved: shares of the lost. Each lost neighbour "
    "is compared with the image that took its place. Near-tie: their cosines before the connector differ by no more "
    "than a random projection to the connector's output width would blur (two standard deviations). The rest was "
    "moved across a clear margin: not for want of room, so by the connector. Closeness preserved: how near the "
    "neighbours after were before, from 0, a random image, to 1, the neighbours before. In brackets: "
    "{s.confidence:.0%} interval for the population of which the images are a sample. The CSV file holds the chance "
    "levels, and also: the median over images of the margin (cosine of the k-th neighbour less that of the next "
    "image); the share of the lost within the connector's own change (the difference is at most twice the median "
    "change of a cosine beyond the best line; a connector that changes much makes ties of much); quantiles over pairs "
    "of images, an evenly spread part of them where there are more than 16,384, of the change of a cosine and of the "
    "distance ratio, after over before, relative to the median pair: an empirical bi-Lipschitz constant; and two "
    "bounds, overlap >= 1 - ties / k and >= 1 - sqrt(ties) / k, ties being the pairs of a neighbour and a stranger "
    "within twice the image's largest change: above 0 they say something; both shares are of the given images, "
    "without interval."
)


class Settings(WithConfidence):
    pass


def needs(study):
    datasets = study["geometry"]["datasets"]
    return datasets and {"summaries": of_all(study, "geometry/{dataset}/{model}/summary.parquet", datasets)}


def table(settings, summaries):
    """The measures; share_moved, what is left of the lost neighbours beside the near-ties, follows these."""
    rows = long_table(summaries, (*OF_PAIRS, *OF_NEIGHBOURS))
    ties = rows[rows["measure"] == "share_near_ties"]
    rest = {end: 1 - ties[f"value{other}"] for end, other in (("", ""), ("_low", "_high"), ("_high", "_low"))}
    moved = ties.assign(measure="share_moved", **{f"value{end}": values for end, values in rest.items()})
    return pd.concat([rows, moved]).sort_index(kind="stable", ignore_index=True)


def page(table, settings):
    """A row per dataset, model and k."""
    return pd.DataFrame(cells(wide(table, numbers_of_neighbours(table)), SHOWN))


def findings(table, settings):
    """What became of the neighbours of each model on each dataset, at the smallest k."""
    lines = []
    for row in wide(table, numbers_of_neighbours(table)[:1]).to_dict("records"):
        overlap, near_ties, moved, closeness = (
            interval(row, name, 2) for name in ("mutual_neighbours", "share_near_ties", "share_moved", "closeness")
        )
        lines.append(
            f"- **{row['model']}** on {row['dataset']}: overlap {overlap} at k = {row['k']} by cosine. Of the lost "
            f"neighbours, a share of {near_ties} were near-ties, {moved} were moved across a clear margin. Closeness "
            f"preserved: {closeness}."
        )
    return [*lines, *about_copies(table), "", POPULATION.format(settings.confidence)]


def draw(table, settings, summaries):
    """What became of the neighbours and how near the new ones were, a row of panels per dataset."""
    import matplotlib.pyplot as plt

    from lossmap.figures.margins import closeness_by_k, fate_of_neighbours
    from lossmap.figures.style import legends_below

    datasets = list(wide(table, numbers_of_neighbours(table)).groupby("dataset", sort=False))
    figure, axes = plt.subplots(
        len(datasets), 2, figsize=(7.2, 3 * len(datasets)), squeeze=False, gridspec_kw={"width_ratios": [1.7, 1]}
    )
    for (left, right), (dataset, group) in zip(axes, datasets, strict=True):
        fate_of_neighbours(left, fates(group))
        closeness_by_k(right, group)
        left.set_title(f"{dataset} (n = {group['n'].max():,})")
    legends_below(axes[-1])
    figure.tight_layout()
    return figure


def fates(rows):
    """model, k, preserved, near_ties, moved: shares of the k neighbours, which sum to 1. rows: as of `wide`."""
    lost = 1 - rows["mutual_neighbours"]
    near = (lost * rows["share_near_ties"]).fillna(0)  # nothing is lost, nothing is near
    shares = {"preserved": 1 - lost, "near_ties": near, "moved": lost - near}
    return pd.DataFrame({"model": rows["model"], "k": rows["k"], **shares})
