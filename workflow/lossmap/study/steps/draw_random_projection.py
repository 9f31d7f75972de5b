"""Dimensions needed, projections, table random_projection -> what a random projection needs and keeps."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lossmap.figures.random_projection import dimensions_by_k, overlap_by_dimension
from lossmap.figures.style import legends_below, save, use_style
from lossmap.study.tables import read_all


def run(*, dimensions: list[Path], projections: list[Path], table: Path, pdf: Path, png: Path) -> None:
    """Draw the dimensions that a random projection needs, and what it keeps with fewer, a row per dataset."""
    use_style()
    needed, kept, rows = read_all(dimensions), read_all(projections), pd.read_csv(table)
    k = kept["k"].min()
    datasets = list(needed["dataset"].unique())
    figure, axes = plt.subplots(len(datasets), 2, figsize=(7.2, 3 * len(datasets)), squeeze=False)
    for (left, right), dataset in zip(axes, datasets, strict=True):
        dimensions_by_k(left, needed[needed["dataset"] == dataset])
        at_k = kept[(kept["dataset"] == dataset) & (kept["purpose"] == "width") & (kept["k"] == k)]
        connectors = rows[(rows["dataset"] == dataset) & (rows["k"] == k)].groupby("model")["overlap_connector"].first()
        overlap_by_dimension(right, at_k, connectors.to_dict())
        left.set_title(f"{dataset} (n = {needed.loc[needed['dataset'] == dataset, 'n'].iloc[0]:,})")
        right.set_title(f"k = {k}")
    legends_below(axes[-1])
    figure.tight_layout()
    save(figure, pdf, png)
