"""What decoders of growing capacity leave unexplained, of the connector and of controls of known loss."""

import pandas as pd

from lossmap.study.captions import BOOTSTRAP
from lossmap.study.specs import WithConfidence
from lossmap.study.tables import cells, interval, marked

TITLE, TOPIC, PAPER = "What does each decoder leave unexplained?", "loss", None
HEADLINE = 2
ABOUT = """
**The ladder**: fraction of variance unexplained (FVU) by decoders of growing capacity. 0: everything is recovered; 1:
no better than predicting the mean. Above, by decoder: the model's connector (black) and the lossless controls that
were given the same decoders; where the black line ends above them, the connector has lost something, and where a line
still falls, nothing is settled yet. Ridge is a linear map of each token on its own (of the mean token where tokens
have no place): one of all tokens side by side may leave less. Hollow marks: trained on fewer images. Rings: the
decoder with the lowest held-out error. Crosses: networks that have not converged, which are no evidence. In brackets:
parameters, by which networks are ordered. Below: what the best decoder leaves of each connector, and a cross for what
theory says that the best linear reconstruction leaves; what leaves under 0.001 is drawn there. Bars: bootstrap
interval over images."""
COLUMNS = (
    *("dataset", "n", "model", "connector", "connector_kind", "lossless", "known_fvu", "pre_dimensions"),
    *("post_dimensions", "decoder", "architecture", "training_share", "parameters", "held_out_error", "converged"),
    *("halfway_error", "passes", "learning_rate", "fvu", "mse", "cosine_error", "best"),
)
PAGE = ["model", "connector", "decoder", "training_share", "parameters", "fvu", "known_fvu", "held_out_error"]
NOTE = (
    "What each decoder leaves of the embeddings before the connector, standardised with the training set's "
    "statistics, on images that trained nothing: through the model's own connector and through controls. FVU: "
    "fraction of variance unexplained, squared error over variance summed over images; 1 is predicting the mean. "
    "Known: what theory says the best linear reconstruction leaves, on the training images. Best: the lowest held-out "
    "error at the largest share of the training images, chosen without the images of this table. Networks add to "
    "ridge, whose parameters are not counted among theirs, and begin as it. Not converged: the held-out error still "
    "fell when the limit of passes was reached, or never fell below ridge at a learning rate that the study sets: no "
    "evidence, so never the best. In brackets: bootstrap interval over images."
)


class Settings(WithConfidence):
    pass


def needs(study):
    return {"ladder": "reconstructors/ladder.parquet"} if "reconstruction" in study else {}


def table(settings, ladder):
    """A row per model, connector, decoder and share of the training images."""
    return pd.read_parquet(ladder[0])


def page(table, settings):
    """The model's own connector first."""
    models = table["model"].map(table["model"].unique().tolist().index)
    order = pd.DataFrame({"model": models, "control": table["connector_kind"] != "own"})
    table = table.loc[order.sort_values(["model", "control"], kind="stable").index]
    shown = cells(table.assign(decoder=marked(table, "decoder")), PAGE)
    return pd.DataFrame(shown | {"best": table["best"].map({True: "best", False: ""})})


def findings(table, settings):
    """What the best decoder leaves of each model's connector and of the lossless controls, and what is no evidence."""
    lines = []
    for model, rows in table.groupby("model", sort=False):
        best, unfinished = rows[rows["best"]], (~rows["converged"]).sum()
        own = best[best["connector_kind"] == "own"].iloc[0]
        text = f"- **{model}**: the best decoder, {own['decoder']}, leaves {interval(own, 'fvu', 3)} of the variance"
        lossless = [f"{row['fvu']:.3f} ({row['connector']})" for _, row in best[best["lossless"]].iterrows()]
        text += f"; of lossless controls {', '.join(lossless)}." if lossless else "."
        networks = f"{unfinished} network{'s have' if unfinished > 1 else ' has'}"
        lines.append(text + (f" {networks} not converged, no evidence." if unfinished else ""))
    return [*lines, "", BOOTSTRAP.format(settings.confidence)]


def draw(table, settings, ladder):
    """The ladder by decoder above, and what the best decoder leaves of each connector below; a column per model."""
    import matplotlib.pyplot as plt

    from lossmap.figures.ladder import best_by_connector, hollow_marks, ladder_by_decoder
    from lossmap.reconstruct.specs import LINEAR

    models = list(table.groupby("model", sort=False))
    connectors = max(rows["connector"].nunique() for _, rows in models)
    heights = [2.3, 0.32 * connectors + 0.2]
    figure, axes = plt.subplots(
        2, len(models), figsize=(1.75 * len(models) + 2, sum(heights) + 1.6), sharey="row", squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    labelled = {}
    for (above, below), (model, rows) in zip(axes.T, models, strict=True):
        ladder_by_decoder(above, rows, LINEAR)
        best_by_connector(below, rows)
        above.set_title(f"{model}\nn = {rows['n'].iloc[0]:,}", fontsize=9)
        for panel in (above, below):
            handles, labels = panel.get_legend_handles_labels()
            labelled |= dict(zip(labels, handles, strict=True))
    labelled |= hollow_marks()
    axes[1, len(models) // 2].set_xlabel("fraction of variance unexplained by the best decoder of each connector")
    axes[0, 0].set_ylabel("fraction of variance\nunexplained")
    figure.legend(
        labelled.values(), labelled, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False, fontsize=8
    )
    figure.tight_layout()
    return figure
