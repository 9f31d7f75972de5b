"""Overlap of each image's nearest neighbours before and after the connector, by k (the paper's Figure 3)."""

from lossmap.study.captions import POPULATION
from lossmap.study.columns import METRICS
from lossmap.study.exhibit import of_all
from lossmap.study.paper import beside
from lossmap.study.specs import Spec
from lossmap.study.tables import about_copies, p_value, read_all

TITLE, TOPIC, PAPER = "Do an image's neighbours survive the connector?", "neighbours", "Figure 3"
HEADLINE = 1
ABOUT = """
**Share of an image's nearest neighbours that survive the connector** (k-NN overlap ratio, KNOR). Neighbours are
searched among the images of the same dataset, by Euclidean distance (unless the axis says cosine) of mean-pooled patch
embeddings before and after the connector; an image is never its own neighbour. 1: all neighbours are preserved. Bands
and brackets are intervals for the population of which the images are a sample; the dashed line is chance, k / (n - 1):
what unrelated embeddings would score. Hollow marks on dotted lines, where there are any, are the paper's values, which
count each image among its own neighbours."""
COLUMNS = ("dataset", "n", "images", "copies", "model", "metric", "k", "overlap", "chance", "null", "overlap_corrected")
PAGE = [
    "dataset",
    "model",
    "metric",
    "k",
    "overlap",
    "chance",
    "overlap_p",
    "overlap_corrected",
    "overlap_reported",
    "n",
]
NOTE = (
    "Share of an image's k nearest neighbours (mean-pooled embeddings, by Euclidean distance or cosine) that are the "
    "same before and after the connector, the image itself left out: mean and {s.confidence:.0%} interval for the "
    "population of which the images are a sample (each image counts as a query and as a neighbour of others). Copies:"
    " images with the pixels or the embedding of another. Equally near neighbours share their places: expected value "
    "over random orders. Chance: k / (n - 1). By permutation: the central {s.confidence:.0%} of the means when images"
    " are paired at random; p: share of those means that reach ours (one-sided), <= where none does. Above chance: 0 "
    "at chance, 1 if all are preserved. Paper's convention: each image counts among its own neighbours, and of "
    "equally near ones the first. Reported: the paper's value, in its convention, where the study has its model and "
    "dataset."
)


class Settings(Spec):
    SECTIONS = ("overlap", "statistics")
    checkpoints: dict[str, str]
    permutations: int
    confidence: float


def needs(study):
    datasets = study["overlap"]["datasets"]
    return datasets and {"summaries": of_all(study, "neighbours/{dataset}/{model}/overlap_summary.parquet", datasets)}


def table(settings, summaries):
    rows = read_all(summaries)
    measured = rows["n"].to_numpy()
    rows["n"] = rows["images"]  # the paper counts all
    rows = beside(rows, "figure3", ["dataset", "n", "k"], ["overlap"], settings.checkpoints)
    rows["n"] = measured
    rows.loc[rows["metric"] != "euclidean", "overlap_reported"] = float("nan")  # the paper's Figure 3 is by distance
    rows["overlap_p_at_floor"] = rows["p_permutation"] <= (1 + 1e-9) / (1 + settings.permutations)
    return rows.rename(
        columns={"low": "overlap_low", "high": "overlap_high", "std": "overlap_std", "p_permutation": "overlap_p"}
    )


def findings(table, settings):
    """The overlap of each model on each dataset, at the smallest k."""
    k, metric = table["k"].min(), table["metric"].iloc[0]
    lines = []
    for model, group in table[(table["metric"] == metric) & (table["k"] == k)].groupby("model", sort=False):
        each = ", ".join(
            f"{row.overlap:.2f} [{row.overlap_low:.2f}, {row.overlap_high:.2f}] on {row.dataset} "
            f"(chance {row.chance:.2f}, {_p(row)})"
            for row in group.itertuples()
        )
        lines.append(f"- **{model}** keeps this share of the {k} nearest neighbours by {METRICS[metric]}: {each}.")
    return [*lines, *about_copies(table), "", POPULATION.format(settings.confidence)]


def _p(row):
    text = p_value(row.overlap_p, at_floor=row.overlap_p_at_floor)
    return f"p {text}" if row.overlap_p_at_floor else f"p = {text}"


def draw(table, settings, summaries):
    """A panel per dataset, by Euclidean distance (or the table's only metric)."""
    import matplotlib.pyplot as plt

    from lossmap.figures.overlap import overlap_by_k
    from lossmap.figures.style import legend_below

    metric = "euclidean" if (table["metric"] == "euclidean").any() else table["metric"].iloc[0]
    datasets = list(table[table["metric"] == metric].groupby("dataset", sort=False))
    figure, axes = plt.subplots(1, len(datasets), figsize=(2.3 * len(datasets) + 0.6, 2.5), sharey=True, squeeze=False)
    for panel, (dataset, group) in zip(axes[0], datasets, strict=True):
        overlap_by_k(panel, group)
        panel.set_title(f"{dataset} (n = {group['n'].iloc[0]:,})")
    axes[0, 0].set_ylabel(f"overlap (KNOR),\nby {METRICS[metric]}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend_below(figure, dict(zip(labels, handles, strict=True)), 4)
    figure.tight_layout()
    return figure
