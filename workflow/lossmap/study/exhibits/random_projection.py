"""Dimensions that a random projection needs to preserve the neighbours, and what it preserves."""

import numpy as np
import pandas as pd

from lossmap.study.exhibit import of_all
from lossmap.study.specs import Spec
from lossmap.study.tables import cells, read_all

TITLE, TOPIC, PAPER = "Would random directions preserve more neighbours than the connector?", "neighbours", None
ABOUT = """
**Would random directions preserve more neighbours than the connector?** The overlap (k-NN overlap ratio, KNOR, by
cosine) that random projections (mean of up to 8) have at k = {s.smallest}, by their number of dimensions; large marks
stand where the connectors are, at their output width. A connector below its line preserves fewer neighbours than
random directions would. The table also says how many dimensions would be *guaranteed* to be enough, by the lemma of
Johnson and Lindenstrauss (with the constant of Dasgupta and Gupta), for the images with the clearest margins: those
numbers are huge, since neighbours are told apart by thousandths of a cosine, and they are a guarantee, not a need."""
KEYS = ["dataset", "model", "k"]
COLUMNS = (
    *(
        "dataset",
        "n",
        "model",
        "k",
        "overlap_connector",
        "overlap_width",
        "width",
        "equivalent",
        "quantile",
        "dimension",
    ),
    *("promised", "preserved_all", "overlap_enough", "guaranteed", "queries"),
)
SHOWN = [
    *("dataset", "model", "k", "overlap_connector", "overlap_width", "equivalent", "quantile", "dimension", "n"),
]
NOTE = (
    "Neighbours by cosine of mean-pooled embeddings; overlap (k-NN overlap ratio, KNOR): the share of them that is "
    "preserved, by the connector and by random projections to its output width (measured, mean of up to 8). Width of "
    "equal overlap: of random projections that preserve as much as the connector (–: fewer than 2, or more than its "
    "own). Dimension: a random projection to it (Johnson-Lindenstrauss, with the constant of Dasgupta and Gupta) "
    "preserves every distance well enough for all k neighbours of the images whose margin is clear enough; the share "
    "of images with the smallest margins, which are near-ties, is given up. k: thousand, M: million, bn: billion. In "
    "brackets: {s.confidence:.0%} bootstrap interval over queries, about their neighbours among the given images "
    "only; of the connector's overlap for the population of which the images are a sample. The CSV file also holds "
    "the connector's width, the share of images that preserve all k neighbours as the lemma promises it and as "
    "measured with such a projection, the overlap of that, and the share of images whose margin is guaranteed beyond "
    "the sample, for the population of which the images are a sample (Dvoretzky-Kiefer-Wolfowitz); for the others no "
    "finite dimension is guaranteed."
)


class Settings(Spec):
    SECTIONS = ("geometry", "statistics")
    k: list[int]
    confidence: float

    @property
    def smallest(self) -> int:
        return min(self.k)


def needs(study):
    names, datasets = ("summary", "dimensions", "projections"), study["geometry"]["datasets"]
    files = {name: of_all(study, f"geometry/{{dataset}}/{{model}}/{name}.parquet", datasets) for name in names}
    return datasets and {"summaries": files.pop("summary"), **files}


def table(settings, summaries, dimensions, projections):
    """A row per dataset, model, k and margin quantile: dimension that is enough, what it promised and preserved.

    Beside it, the same in all rows of a k: overlap of the connector, of a random projection to its width, and the
    width to which a random projection preserves as much (equivalent).
    """
    summary, tried = read_all(summaries), read_all(projections)
    enough = tried[tried["purpose"] == "enough"].drop(columns="purpose")
    names = {"overlap": "overlap_enough", "kept_all": "preserved_all"}
    ends = ("", "_low", "_high")
    enough = enough.rename(columns={f"{name}{end}": f"{ours}{end}" for name, ours in names.items() for end in ends})
    bands = read_all(dimensions)[[*KEYS, "quantile", "low", "high"]]
    bands = bands.rename(columns={"low": "dimension_low", "high": "dimension_high"})
    rows = enough.merge(bands, on=[*KEYS, "quantile"], how="left", validate="one_to_one")
    rows = rows.merge(_of_connectors(summary, tried), on=KEYS, how="left", validate="many_to_one")
    return rows[[name for column in COLUMNS for name in (column, f"{column}_low", f"{column}_high") if name in rows]]


def _of_connectors(summary, tried):
    """A row per dataset, model and k: what the connector and a random projection to its width preserve."""
    measures = {measure: rows.set_index(KEYS) for measure, rows in summary.groupby("measure")}
    found = []
    for key, group in tried[tried["purpose"] == "width"].groupby(KEYS, sort=False):
        curve, connector = group.sort_values("dimension"), measures["mutual_neighbours"].loc[key]
        widest = curve.iloc[-1]
        row = dict(zip(KEYS, key, strict=True)) | {"width": widest["dimension"]}
        for end, name in (("", "value"), ("_low", "low"), ("_high", "high")):
            row |= {f"overlap_connector{end}": connector[name], f"overlap_width{end}": widest[f"overlap{end}"]}
        dimensions, overlaps = (curve[name].to_numpy() for name in ("dimension", "overlap"))
        row["equivalent"] = equivalent_dimension(dimensions, overlaps, connector["value"])
        found.append(row | {"guaranteed": measures["margin_guaranteed"].loc[key, "value"]})
    return pd.DataFrame(found)


def equivalent_dimension(dimensions, overlaps, wanted):
    """Dimension at which a curve of overlaps reaches a value, interpolated on a logarithmic scale; nan outside it."""
    rising = np.maximum.accumulate(overlaps)
    if not rising[0] <= wanted <= rising[-1]:
        return np.nan
    return float(2 ** np.interp(wanted, rising, np.log2(dimensions)))


LETTERS = {" thousand": "k", " million": "M", " billion": "bn"}


def page(table, settings):
    """The same with dimensions as people write them: 67M [36M, 93M]."""
    band = table[["dimension", "dimension_low", "dimension_high"]].map(in_short).replace(LETTERS, regex=True)
    shown = table.drop(columns=["dimension_low", "dimension_high"])
    shown["dimension"] = band["dimension"] + " [" + band["dimension_low"] + ", " + band["dimension_high"] + "]"
    shown["equivalent"] = table["equivalent"].map(in_short)
    return pd.DataFrame(cells(shown, SHOWN))


def findings(table, settings):
    """What is enough and what the connector is worth, a line per model and dataset.

    At the smallest k and the quantile nearest to one half.
    """
    rows = table[table["k"] == settings.smallest]
    distance = (rows["quantile"] - 0.5).abs()
    lines = []
    for row in rows[distance == distance.min()].itertuples():
        worth = "" if np.isnan(row.equivalent) else f", as much as a random projection to {in_short(row.equivalent)}"
        others = "; for the others, no finite dimension is" if row.guaranteed < 1 else ""
        lines.append(
            f"- **{row.model}** on {row.dataset}: a random projection to the connector's {row.width:.0f} dimensions "
            f"has an overlap of {row.overlap_width:.2f} at k = {row.k}; the connector's is {row.overlap_connector:.2f}"
            f"{worth}. To preserve all {row.k} neighbours (by cosine) of {1 - row.quantile:.0%} of the images, "
            f"{in_short(row.dimension)} [{in_short(row.dimension_low)}, {in_short(row.dimension_high)}] dimensions "
            f"are guaranteed to be enough (measured: {row.preserved_all:.0%} preserve all). Images whose margin is "
            f"guaranteed beyond the sample: {row.guaranteed:.0%}{others}."
        )
    return [
        *lines,
        "",
        f"In brackets: {settings.confidence:.0%} bootstrap interval over queries, among the given images only.",
    ]


def in_short(value):
    """A dimension in two digits: 96, 1.0 million; "none" where no finite one is enough; "–" where it is not known."""
    if np.isnan(value):
        return "–"
    if np.isinf(value):
        return "none"
    for size, word in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if value >= size:
            return f"{value / size:.2g}{word}" if value < 100 * size else f"{value / size:.0f}{word}"
    return f"{value:.0f}"


def draw(table, settings, summaries, dimensions, projections):
    """A panel per dataset, at the smallest k. What is guaranteed stands in the table."""
    import matplotlib.pyplot as plt

    from lossmap.figures.random_projection import overlap_by_dimension
    from lossmap.figures.style import legend_below

    k, tried = settings.smallest, read_all(projections)
    tried = tried[(tried["purpose"] == "width") & (tried["k"] == k)]
    datasets = list(tried.groupby("dataset", sort=False))
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(3.2 * len(datasets) + 0.4, 3), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, (dataset, rows) in zip(axes[0], datasets, strict=True):
        connectors = (
            table[(table["dataset"] == dataset) & (table["k"] == k)].groupby("model")["overlap_connector"].first()
        )
        overlap_by_dimension(panel, rows, connectors.to_dict())
        panel.set_title(f"{dataset}, k = {k}")
        panel.label_outer()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend_below(figure, dict(zip(labels, handles, strict=True)), 2, "small")
    return figure
