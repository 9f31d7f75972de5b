"""How alike embeddings before and after the connector are, by other measures than the overlap of neighbours."""

import pandas as pd

from lossmap.study.captions import POPULATION
from lossmap.study.exhibit import of_all
from lossmap.study.long_tables import long_table, wide
from lossmap.study.specs import Spec
from lossmap.study.tables import about_copies, cells, interval

TITLE, TOPIC, PAPER = "How alike are embeddings before and after the connector?", "geometry", None
ABOUT = """
**How alike are embeddings before and after the connector, by other measures?** All on mean-pooled embeddings. CKA: 1
for the same up to rotation and scale, 0 for unrelated. Overlap, trustworthiness, continuity: whether neighbours (by
cosine) stay neighbours, and how far strangers and lost neighbours come from and go. Kendall's tau and Spearman's rho:
whether neighbours keep their order. Effective rank: how many directions the embeddings use; intrinsic dimension: of
the surface on which they lie. Where either falls across the connector, information may be gone, or some directions
only squeezed: the verdict tells these apart."""
MEASURES = (
    *("cka", "mutual_neighbours", "trustworthiness", "continuity", "kendall", "spearman"),
    *("effective_rank_pre", "effective_rank_post", "intrinsic_dimension_pre", "intrinsic_dimension_post"),
)
COLUMNS = ("dataset", "n", "images", "copies", "model", "measure", "k", "value", "chance")
SHOWN = [
    *("dataset", "model", "cka", "trustworthiness", "effective_rank_pre", "effective_rank_post"),
    *("intrinsic_dimension_pre", "intrinsic_dimension_post", "n"),
]
NOTE = (
    "All on mean-pooled embeddings; neighbours by cosine (for the intrinsic dimension by Euclidean distance). CKA: "
    "debiased linear centred kernel alignment, 0 for unrelated embeddings, 1 for the same up to rotation and scale. "
    "Trustworthiness: few strangers among the {s.smallest} nearest neighbours after; 1 is perfect, about 0.5 is "
    "chance. Effective rank: how many directions the embeddings use. Intrinsic dimension: of the surface on which "
    "they lie, from the two nearest neighbours (TwoNN). In brackets: {s.confidence:.0%} interval for the population "
    "of which the images are a sample; of CKA and effective rank that of the bootstrap to first order; of measures of "
    "neighbours it counts each image as a query and as a neighbour of others. The CSV file holds every k and the "
    "chance levels, and also: overlap (k-NN overlap ratio, KNOR: the share of the k nearest that are the same on both "
    "sides, here by cosine, where Figure 3 shows it by Euclidean distance), continuity (few neighbours before are "
    "lost far away; 1 is perfect), and whether an image's k neighbours keep their order, by Kendall's tau and "
    "Spearman's rho, 1 the same, 0 chance: an agreement of the same distances on both sides, with nothing to adjust "
    "for."
)


class Settings(Spec):
    SECTIONS = ("geometry", "statistics")
    k: list[int]
    confidence: float

    @property
    def smallest(self) -> int:
        return min(self.k)


def needs(study):
    datasets = study["geometry"]["datasets"]
    return datasets and {"summaries": of_all(study, "geometry/{dataset}/{model}/summary.parquet", datasets)}


def table(settings, summaries):
    return long_table(summaries, MEASURES)


def page(table, settings):
    """A row per dataset and model, at the smallest k."""
    return pd.DataFrame(cells(wide(table, [settings.smallest]), SHOWN))


def findings(table, settings):
    """CKA, neighbours and dimensions of each model on each dataset, at the smallest k."""
    lines = []
    for row in wide(table, [settings.smallest]).to_dict("records"):
        rank, dimension = (
            " before, ".join(interval(row, f"{name}_{stage}", digits) for stage in ("pre", "post"))
            for name, digits in (("effective_rank", 0), ("intrinsic_dimension", 1))
        )
        overlap, chance = interval(row, "mutual_neighbours", 2), row["mutual_neighbours_chance"]
        lines.append(
            f"- **{row['model']}** on {row['dataset']}: CKA {interval(row, 'cka', 2)}; overlap {overlap} at k = "
            f"{row['k']} by cosine (chance {chance:.2f}); effective rank {rank} after; intrinsic dimension {dimension} "
            "after."
        )
    return [*lines, *about_copies(table), "", POPULATION.format(settings.confidence)]
