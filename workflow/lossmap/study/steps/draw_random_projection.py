"""Projections, table random_projection -> what random projections keep, beside the connectors."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lossmap.figures.random_projection import overlap_by_dimension
from lossmap.figures.style import legend_below, save, use_style
from lossmap.study.tables import read_all


def run(*, projections: list[Path], table: Path, pdf: Path, png: Path) -> None:
    """Draw the overlap that random projections have by their number of dimensions, and the connectors', a panel per
    dataset, at the smallest k. What is guaranteed, by the lemma of Johnson and Lindenstrauss, stands in the table."""
    use_style()
    kept, rows = read_all(projections), pd.read_csv(table)
    k = kept["k"].min()
    datasets = list(kept["dataset"].unique())
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(3.2 * len(datasets) + 0.4, 3), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, dataset in zip(axes[0], datasets, strict=True):
        at_k = kept[(kept["dataset"] == dataset) & (kept["purpose"] == "width") & (kept["k"] == k)]
        connectors = rows[(rows["dataset"] == dataset) & (rows["k"] == k)].groupby("model")["overlap_connector"].first()
        overlap_by_dimension(panel, at_k, connectors.to_dict())
        panel.set_title(f"{dataset}, k = {k}")
        panel.label_outer()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend_below(figure, dict(zip(labels, handles, strict=True)), 2, "small")
    save(figure, pdf, png)
