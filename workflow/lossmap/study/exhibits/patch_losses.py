"""How the loss differs between the images of each dataset."""

import pandas as pd

from lossmap.study.derived import evaluated
from lossmap.study.exhibit import of_all
from lossmap.study.specs import Spec

TITLE, TOPIC, PAPER = "How does the loss differ between images?", "loss", None
ABOUT = """
**How the loss differs between images**: squared error of each model's best decoder, mean over the patches of an
image. Boxes: quartiles of the images, with whiskers from 5 to 95% of them; hollow: their mean. Dashed: what
predicting the mean scores on the training set. The losses of every patch are in the study's folder ``patch_loss``,
one Zarr store for a dataset and a model."""
# Name -> share of the images whose loss is as low.
QUANTILES = {
    "loss_percentile_5": 0.05,
    "loss_lower_quartile": 0.25,
    "loss_median": 0.5,
    "loss_upper_quartile": 0.75,
    "loss_percentile_95": 0.95,
}
COLUMNS = ("dataset", "n", "model", "decoder", "loss", *QUANTILES)


class Settings(Spec):
    pass


def needs(study):
    datasets = evaluated(study)
    return datasets and {"images": of_all(study, "patch_loss/{dataset}/{model}.parquet", datasets)}


def table(settings, images):
    """A row per dataset and model, which the paths name."""
    rows = []
    for path in images:
        losses = pd.read_parquet(path, columns=["reconstructor", "squared_error"], filters=[("best", "==", True)])
        row = {"dataset": path.parent.name, "n": len(losses), "model": path.stem}
        row |= {"decoder": losses["reconstructor"].iloc[0], "loss": losses["squared_error"].mean()}
        rows.append(row | {name: losses["squared_error"].quantile(q) for name, q in QUANTILES.items()})
    return pd.DataFrame(rows)


def findings(table, settings):
    """The losses of most images, a line per model."""
    lines = []
    for model, rows in table.groupby("model", sort=False):
        each = [
            f"{row.loss_lower_quartile:.3f} to {row.loss_upper_quartile:.3f} on {row.dataset} (median "
            f"{row.loss_median:.3f}, 95% at most {row.loss_percentile_95:.3f})"
            for row in rows.itertuples()
        ]
        lines.append(f"- **{model}**: the middle half of the images have losses of {', '.join(each)}.")
    return lines


def draw(table, settings, images):
    """A box per dataset and model."""
    import matplotlib.pyplot as plt

    from lossmap.figures.patch_losses import loss_boxes, references
    from lossmap.figures.style import legend_below

    figure, axes = plt.subplots(figsize=(min(7.2, 1.8 + 0.45 * len(table)), 3), layout="constrained")
    loss_boxes(axes, table)
    handles, labels = axes.get_legend_handles_labels()
    legend_below(figure, dict(zip(labels, handles, strict=True)) | references(), 3)
    return figure
