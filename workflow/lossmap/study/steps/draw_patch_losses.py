"""Patch losses of every image -> their histogram."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lossmap.figures.patch_losses import loss_histogram, references
from lossmap.figures.style import legend_below, save, use_style

COLUMNS, BINS = 4, 40


def run(*, images: list[Path], pdf: Path, png: Path) -> None:
    """Draw the histogram of the images' losses by each model's best reconstructor, a panel per data set.

    images: tables patch_loss/<dataset>/<model>.parquet; data set and model are taken from the path.
    """
    use_style()
    frames = [
        pd.read_parquet(path, columns=["squared_error"], filters=[("best", "==", True)]).assign(
            dataset=path.parent.name, model=path.stem
        )
        for path in images
    ]
    table = pd.concat(frames, ignore_index=True)
    bins = np.linspace(0, 1.02 * max(1.0, table["squared_error"].max()), BINS + 1)
    datasets = list(table.groupby("dataset", sort=False))
    rows = -(-len(datasets) // COLUMNS)
    columns = -(-len(datasets) // rows)
    size = (2.4 * columns + 0.6, 1.9 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for panel, (dataset, group) in zip(axes.flat, datasets, strict=False):
        loss_histogram(panel, group, bins)
        panel.set_title(f"{dataset} (n = {group.groupby('model').size().iloc[0]:,})")
    for panel in axes.flat[len(datasets) :]:
        panel.set_axis_off()
    for panel in axes.flat[max(0, len(datasets) - columns) : len(datasets)]:  # the lowest of each column
        panel.tick_params(labelbottom=True)
        panel.set_xlabel("squared error")
    for panel in axes[:, 0]:
        panel.set_ylabel("share of images")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend_below(figure, dict(zip(labels, handles, strict=True)) | references(), 3)
    figure.tight_layout()
    save(figure, pdf, png)
