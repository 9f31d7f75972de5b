"""Overlap of neighbours by six ways to compare images: all patches, pooled, whitened ... (the paper's Table 7)."""

from lossmap.study.captions import POPULATION
from lossmap.study.columns import INDEXES, STAGES
from lossmap.study.exhibit import of_all
from lossmap.study.paper import beside
from lossmap.study.specs import Spec
from lossmap.study.tables import about_copies, interval, read_all

TITLE, TOPIC, PAPER = "Does the overlap depend on how embeddings are compared?", "neighbours", "Table 7"
ABOUT = """
**Does the overlap depend on how embeddings are compared?** The share of an image's nearest neighbours that are the
same before and after the connector (k-NN overlap ratio, KNOR), when all patches are compared side by side, when they
are pooled first, by distance or by inner product, after whitening, and without tokens of outlying length ("sinks").
An image is never its own neighbour."""
COLUMNS = (
    *("dataset", "n", "images", "copies", "model", "index", "k", "overlap", "chance", "std"),
    *("sinks_pre", "sinks_post"),
)
PAGE = ["dataset", "model", "index", "k", "overlap", "chance", "overlap_reported", "overlap_std_reported", "n"]
NOTE = (
    "Share of an image's k nearest neighbours that are the same before and after the connector (k-NN overlap ratio, "
    "the image itself left out), by how embeddings are compared. All patches: an image's patches side by side, as one "
    "long vector; not for models whose images differ in their numbers of patches. Cosine: inner product of vectors "
    "scaled to unit length. Whitened: principal components that hold 99% of the variance, each scaled to deviation 1, "
    "so that no direction outweighs another. Without sinks: tokens "
    "longer than {s.sink_ratio:g} times the image's median token are left out of the mean. In brackets: "
    "{s.confidence:.0%} interval for the population of which the images are a sample. Chance: k / (n - 1). Reported: "
    "the paper's values for its LLaVA, whatever the dataset here: it does not say on which images. The CSV file also "
    "holds the values in the paper's convention (each image counts among its own neighbours), standard deviations "
    "over images, and copies: images with the pixels or the embedding of another."
)


class Settings(Spec):
    SECTIONS = ("geometry", "statistics")
    checkpoints: dict[str, str]
    sink_ratio: float
    confidence: float


def needs(study):
    datasets = study["geometry"]["datasets"]
    return datasets and {"summaries": of_all(study, "geometry/{dataset}/{model}/indexes_summary.parquet", datasets)}


def table(settings, summaries):
    rows = read_all(summaries)
    rows = beside(rows, "table7", ["index", "k"], ["overlap_mean", "overlap_std"], settings.checkpoints)
    names = {"low": "overlap_low", "high": "overlap_high", "std": "overlap_std"}
    return rows.rename(columns=names | {"overlap_mean_reported": "overlap_reported"})


def findings(table, settings):
    """Overlap by each index at the smallest k, and how many tokens were sinks, a line per model and dataset."""
    k, lines = table["k"].min(), []
    for (dataset, model), group in table[table["k"] == k].groupby(["dataset", "model"], sort=False):
        rows = group.to_dict("records")
        each = ", ".join(f"{interval(row, 'overlap', 2)} ({INDEXES[row['index']]})" for row in rows)
        sinks = " and ".join(f"{rows[0][f'sinks_{stage}']:.1%} {name}" for stage, name in STAGES.items())
        lines.append(
            f"- **{model}** on {dataset} preserves, of the {k} nearest neighbours: {each}; chance "
            f"{rows[0]['chance']:.2f}. Of the tokens, {sinks} the connector are sinks."
        )
    return [*lines, *about_copies(table), "", POPULATION.format(settings.confidence)]
