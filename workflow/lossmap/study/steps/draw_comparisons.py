"""Table comparisons -> its figure."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lossmap.figures.comparisons import PANELS, differences
from lossmap.figures.style import save, use_style


def run(*, table: Path, pdf: Path, png: Path) -> None:
    """Draw the paired differences, a row of panels per pair: overlap, loss, scores."""
    use_style()
    rows = pd.read_csv(table)
    rows["panel"] = rows["measure"].map(lambda name: name if name in PANELS else "score")
    pairs = list(rows.groupby(["base", "tuned"], sort=False))
    panels = [name for name in PANELS if name in set(rows["panel"])]
    lines = [max(len(group[group["panel"] == name]) for name in panels) for _, group in pairs]
    figure, axes = plt.subplots(
        len(pairs), len(panels), figsize=(3.4 * len(panels), sum(lines) * 0.28 + 1.2 * len(pairs)), squeeze=False,
        layout="constrained", gridspec_kw={"height_ratios": [count + 3 for count in lines]},
    )  # fmt: skip
    for line, ((base, tuned), group) in zip(axes, pairs, strict=True):
        for axis, name in zip(line, panels, strict=True):
            differences(axis, group[group["panel"] == name], name)
        line[0].set_title(f"{tuned} less {base}", loc="left", fontsize="medium")
    save(figure, pdf, png)
