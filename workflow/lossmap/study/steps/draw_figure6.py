"""Alignments -> Figure 6."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lossmap.figures.procrustes import alignment_planes, marks
from lossmap.figures.style import legend_below, save, use_style


def run(*, alignments: list[Path], pdf: Path, png: Path, spec: dict) -> None:
    """Draw embeddings before the connector, after it, and after it rotated onto those before, a row per model.

    spec: models, the names of the alignments, in their order.
    """
    use_style()
    rows = len(alignments)
    figure, axes = plt.subplots(rows, 3, figsize=(6.6, 2.1 * rows + 0.2), squeeze=False)
    for line, path, model in zip(axes, alignments, spec["models"], strict=True):
        alignment_planes(list(line), pd.read_parquet(path))
        line[0].set_ylabel(model)
    for panel, title in zip(axes[0], ("before", "after", "after, rotated onto before"), strict=True):
        panel.set_title(title)
    legend_below(figure, marks(), 1, "small")
    figure.tight_layout()
    save(figure, pdf, png)
