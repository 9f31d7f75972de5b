"""Patch losses of every image -> the figure of their distributions."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lossmap.figures.patch_losses import loss_boxes, references
from lossmap.figures.style import legend_below, save, use_style


def run(*, images: list[Path], pdf: Path, png: Path) -> None:
    """Draw how the images' losses by each model's best reconstructor are distributed, a box per data set and model.

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
    boxes = table.groupby(["dataset", "model"]).ngroups
    figure, axes = plt.subplots(figsize=(min(7.2, 1.8 + 0.45 * boxes), 3), layout="constrained")
    loss_boxes(axes, table)
    handles, labels = axes.get_legend_handles_labels()
    legend_below(figure, dict(zip(labels, handles, strict=True)) | references(), 3)
    save(figure, pdf, png)
