"""How two models of the study differ on the same images: a fine-tuned one and its base."""

import pandas as pd

from lossmap.study.columns import METRICS
from lossmap.study.scoring import SCORE_NAMES
from lossmap.study.specs import WithConfidence
from lossmap.study.tables import cells, interval, read_all

TITLE, TOPIC, PAPER = "What did fine-tuning change?", "comparisons", None
HEADLINE = 1
ABOUT = """
**What did fine-tuning change?** Differences of two models on the same images, tuned less base: k-NN overlap (KNOR) of
each model's embeddings before and after its connector, fraction of variance that each model's best decoder leaves
unexplained (FVU), and scores. Points are filled where the interval over images leaves out 0. Where the embeddings
before the connector are the same bytes, overlap and FVU differ by the connector alone."""
COLUMNS = (
    *("dataset", "base", "tuned", "measure", "metric", "k", "n"),
    *("value_base", "value_tuned", "difference", "equal_pre", "reason"),
)
PAIR = ["base", "tuned"]
SHOWN = ["dataset", "base", "tuned", "measure", "difference", "value_base", "equal_pre", "n", "reason"]
NOTE = (
    "Difference: tuned less base, of the same images; in brackets its {s.confidence:.0%} interval over images. "
    "Overlap (k-NN overlap ratio, KNOR): of each model's own embeddings before and after its connector; the interval "
    "counts each image as a query and as a neighbour. FVU: fraction of variance unexplained by each model's best "
    "decoder; more is lost. Scores: more is better; images are drawn, each with all its questions. Equal "
    "before: share of the bytes of the embeddings before the connector that both models have in common. 1: tower and "
    "preprocessing are the same, so that overlap and FVU differ by the connector alone. The interval covers other "
    "images, not another fine-tuning run."
)
MEASURES = {"overlap": "overlap", "FVU": "FVU of patches", **SCORE_NAMES}


class Settings(WithConfidence):
    pass


def needs(study):
    pairs = study["compare"]
    return pairs and {"comparisons": [f"comparisons/{base}/{tuned}.parquet" for base, tuned in pairs]}


def table(settings, comparisons):
    """A row per dataset, pair of models, measure, metric and k."""
    rows = read_all(comparisons).rename(columns={"low": "difference_low", "high": "difference_high"})
    rows = rows.sort_values("dataset", key=_order, kind="stable", ignore_index=True)
    return rows[[name for column in COLUMNS for name in (column, f"{column}_low", f"{column}_high") if name in rows]]


def _order(names):
    """The place of each name among all, by where it stands first."""
    return pd.Series(pd.factorize(names)[0], index=names.index)


def page(table, settings):
    """The rows with what is measured in one column."""
    return pd.DataFrame(cells(table.assign(measure=[_measure(row) for row in table.to_dict("records")]), SHOWN))


def _measure(row):
    """What a row is about: "overlap at k = 10 (cosine)", "CIDEr"."""
    where = f" at k = {row['k']} ({METRICS[row['metric']]})" if row["measure"] == "overlap" else ""
    return f"{MEASURES[row['measure']]}{where}"


def findings(table, settings):
    """For each pair what both have in common before the connector, and each difference whose interval is without 0."""
    lines = []
    for (base, tuned), rows in table.groupby(PAIR, sort=False):
        equal = rows["equal_pre"].min()
        tower = (
            "the embeddings before the connector are the same bytes"
            if equal == 1
            else f"of the bytes before the connector at least {equal:.0%} are the same on each dataset"
        )
        defined = rows.dropna(subset=["difference_low", "difference_high"])
        away = defined[(defined["difference_low"] > 0) | (defined["difference_high"] < 0)].to_dict("records")
        lines.append(f"- **{tuned}** less **{base}**: {tower}; {len(away)} of {len(defined)} intervals are without 0.")
        lines += ["", *(f"  - {_sentence(row)}" for row in away), ""] if away else []
    return [*lines, "", f"In brackets: {settings.confidence:.0%} interval over images."]


def _sentence(row):
    return (
        f"{_measure(row)} on {row['dataset']}: {interval(row, 'difference', 3)} (base {row['value_base']:.3f}, n = "
        f"{row['n']})"
    )


def draw(table, settings, comparisons):
    """A row of panels per pair: overlap, loss, scores."""
    import matplotlib.pyplot as plt

    from lossmap.figures.comparisons import PANELS, differences

    rows = table.assign(panel=table["measure"].where(table["measure"].isin(PANELS), "score"))
    rows = rows.rename(columns={"difference_low": "low", "difference_high": "high"})
    pairs = list(rows.groupby(PAIR, sort=False))
    panels = [name for name in PANELS if name in set(rows["panel"])]
    lines = [group["panel"].value_counts().max() for _, group in pairs]
    figure, axes = plt.subplots(
        len(pairs), len(panels), figsize=(3 * len(panels), sum(lines) * 0.28 + 1.2 * len(pairs)), squeeze=False,
        layout="constrained", gridspec_kw={"height_ratios": [count + 3 for count in lines]},
    )  # fmt: skip
    for line, ((base, tuned), group) in zip(axes, pairs, strict=True):
        for axis, name in zip(line, panels, strict=True):
            differences(axis, group[group["panel"] == name], name)
        line[0].set_title(f"{tuned} less {base}", loc="left", fontsize="medium")
    return figure
