"""Training histories -> the figure of how the networks learned."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lossmap.figures.history import kinds_of_lines, training_history
from lossmap.figures.style import legend_below, log_ticks, save, use_style


def run(*, histories: list[Path], pdf: Path, png: Path) -> None:
    """Draw held-out error and training loss, a column of panels per model, a row per connector.

    histories: tables <model>/<connector>/<network>-<share>.history.csv; the names are taken from the path.
    """
    use_style()
    frames = []
    for path in histories:
        network, share = path.name.removesuffix(".history.csv").rsplit("-", 1)
        names = {"model": path.parent.parent.name, "connector": path.parent.name}
        frames.append(pd.read_csv(path).assign(**names, network=network, share=int(share)))
    table = pd.concat(frames, ignore_index=True)
    models, connectors, networks = (list(table[name].unique()) for name in ("model", "connector", "network"))
    shares = sorted(table["share"].unique(), reverse=True)
    size = (2.8 * len(models) + 0.6, 2.1 * len(connectors) + 0.4)
    figure, axes = plt.subplots(len(connectors), len(models), figsize=size, sharex="col", sharey=True, squeeze=False)
    labelled = {}
    for line, connector in zip(axes, connectors, strict=True):
        for panel, model in zip(line, models, strict=True):
            rows = table[(table["model"] == model) & (table["connector"] == connector)]
            training_history(panel, rows, networks, shares)
            handles, labels = panel.get_legend_handles_labels()
            labelled |= dict(zip(labels, handles, strict=True))
    for panel in axes.flat:
        log_ticks(panel.yaxis)
    labelled |= kinds_of_lines()
    for panel, model in zip(axes[0], models, strict=True):
        panel.set_title(model)
    for panel in axes[-1]:
        panel.set_xlabel("images seen")
    for panel, connector in zip(axes[:, 0], connectors, strict=True):
        panel.set_ylabel("model's connector" if connector == "own" else connector.replace("_", " "))
    figure.supylabel("squared error (1: predicting the mean)", fontsize="medium")
    legend_below(figure, labelled, len(networks) + 1, "small")
    figure.tight_layout()
    save(figure, pdf, png)
