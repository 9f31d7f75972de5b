"""Embeddings before the connector, after it, and after it rotated onto those before (the paper's Figure 6)."""

from lossmap.study.exhibit import of_all
from lossmap.study.specs import Spec

TITLE, TOPIC, PAPER = "Do images keep their places?", "geometry", "Figure 6"
ABOUT = """
**Embeddings before the connector, after it, and after it rotated onto those before** (orthogonal Procrustes), one dot
per image of {s.dataset}. Before and after: each in its own first two principal components; rotated: in those of
before. An image has one colour in all panels, by its place along the first component before: where colours stay in
order, images that lay together still do. Lines lead from the place before (hollow) to the rotated embedding.
Percentages: the share of the variance of all embeddings of a panel that lies along its axis. Residual: mean distance
of an image's two embeddings after the rotation, in all dimensions, of which a plane shows two. Lengths: mean distance
of an image from the mean of all, before and after; a rotation changes none, so that where they differ a residual is
left even if all directions agree (Table 5 has shares of variance, which allow for scale)."""
COLUMNS = (
    *("dataset", "model", "image_id", "pre_1", "pre_2", "post_1", "post_2", "aligned_1", "aligned_2"),
    *("residual", "pre_length", "post_length"),
)


class Settings(Spec):
    dataset: str
    models: list[str]

    @classmethod
    def of(cls, study):
        return super().of(study, dataset=study["geometry"]["datasets"][0])


def needs(study):
    datasets = study["geometry"]["datasets"][:1]
    return datasets and {"alignments": of_all(study, "geometry/{dataset}/{model}/alignment.parquet", datasets)}


def table(settings, alignments):
    """The dots that are drawn, a row per model and image; with their lengths in all dimensions."""
    import pandas as pd

    each = zip(settings.models, map(pd.read_parquet, alignments), strict=True)
    rows = pd.concat([rows.assign(dataset=settings.dataset, model=model) for model, rows in each], ignore_index=True)
    return rows.rename(columns={"procrustes_error": "residual"})[list(COLUMNS)]


def shares(rows):
    """Side -> the shares of the variance that lie along the two axes. rows: of one model, places about their mean."""
    whole = {side: (rows[f"{length}_length"] ** 2).sum() for side, length in SIDES.items()}
    return {side: tuple((rows[f"{side}_{j}"] ** 2).sum() / whole[side] for j in (1, 2)) for side in SIDES}


# Of which embeddings a panel's dots are, and whose lengths are theirs: a rotation changes none.
SIDES = {"pre": "pre", "post": "post", "aligned": "post"}


def lengths(rows):
    """Mean distance of an image from the mean of all, before and after. rows: of one model."""
    return rows["pre_length"].mean(), rows["post_length"].mean()


def findings(table, settings):
    """What the planes show, and the residual, a line per model."""
    lines = []
    for model, rows in table.groupby("model", sort=False):
        before, after = lengths(rows)
        found = {side: sum(both) for side, both in shares(rows).items()}
        lines.append(
            f"- **{model}**: the planes hold {found['pre']:.0%} of the variance before, {found['post']:.0%} of that "
            f"after, {found['aligned']:.0%} of that after once it is rotated; residual {rows['residual'].mean():.2f}, "
            f"where embeddings are {before:.2f} long before and {after:.2f} after (means over {len(rows)} images)."
        )
    return lines


def draw(table, settings, alignments):
    """A row of panels per model."""
    import matplotlib.pyplot as plt

    from lossmap.figures.procrustes import alignment_planes, marks, name_axes
    from lossmap.figures.style import legend_below

    models = list(table.groupby("model", sort=False))
    figure, axes = plt.subplots(len(models), 3, figsize=(6.6, 2.2 * len(models) + 0.2), squeeze=False)
    for line, (model, rows) in zip(axes, models, strict=True):
        alignment_planes(list(line), rows)
        name_axes(list(line), list(shares(rows).values()), rows["residual"].mean(), list(lengths(rows)))
        line[0].annotate(model, (-0.22, 0.5), xycoords="axes fraction", rotation=90, ha="right", va="center")
    for panel, title in zip(axes[0], ("before", "after", "after, rotated onto before"), strict=True):
        panel.set_title(title, pad=26)
    legend_below(figure, marks(), 1, "small")
    figure.tight_layout()
    return figure
