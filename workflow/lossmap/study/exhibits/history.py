"""How the networks of the ladder learned."""

import pandas as pd

from lossmap.study.specs import Spec

TITLE, TOPIC, PAPER = "How did the networks learn?", "loss", None
ABOUT = """
**How the networks of the ladder learned**: squared error on held-out training images (strong lines) and on the images
trained on (faint lines: the mean of the steps since the point before, as they were trained, dropout included where
there is any), by images seen. Networks begin as ridge, and end no worse; where ridge has too few images for its
inputs, they learn alone and begin as the mean. The learning rate, found by trial unless the study sets it, falls in
stages whenever the held-out error is at rest. A mark stands where the held-out error was lowest: those weights are
used. A cross at the end: the network has not converged, and is no evidence. 1 is predicting the mean."""
COLUMNS = (
    *("model", "connector", "decoder", "training_share", "step", "passes", "images_seen", "learning_rate"),
    *("training_loss", "held_out_error", "converged"),
)
NAMES = {"epoch": "passes", "images": "images_seen", "train_loss": "training_loss", "held_out_loss": "held_out_error"}


class Settings(Spec):
    pass


def needs(study):
    from lossmap.study.derived import connectors_of, networks_of

    reconstruction = study.get("reconstruction")
    histories = reconstruction and [
        f"reconstructors/{model}/{connector}/{network}-{share}.history.csv"
        for model in study["models"]
        for connector in connectors_of(reconstruction)
        for network in networks_of(reconstruction, model, connector)
        for share in reconstruction["shares"]
    ]
    return {"histories": histories} if histories else {}


def table(settings, histories):
    """The histories of all networks, which the paths name: MODEL/CONNECTOR/NETWORK-SHARE.history.csv."""
    frames = []
    for path in histories:
        network, share = path.name.removesuffix(".history.csv").rsplit("-", 1)
        about = {"model": path.parent.parent.name, "connector": path.parent.name, "decoder": network}
        frames.append(pd.read_csv(path).rename(columns=NAMES).assign(**about, training_share=int(share) / 100))
    rows = pd.concat(frames, ignore_index=True)
    return rows[[name for name in COLUMNS if name in rows]]


def findings(table, settings):
    """How many networks converged, and which have not; a line per model."""
    lines = []
    for model, rows in table.groupby("model", sort=False):
        last = rows.groupby(["connector", "decoder", "training_share"], sort=False)["converged"].last()
        rest = [f"{name} at {share:.0%} of the images, on {where}" for where, name, share in last.index[~last]]
        text = f"- **{model}**: {last.sum()} of {len(last)} networks have converged"
        lines.append(f"{text}; not {', '.join(rest).replace('on own', 'on the connector')}." if rest else f"{text}.")
    return lines


def draw(table, settings, histories):
    """Held-out error and training loss, a column of panels per model, a row per connector."""
    import matplotlib.pyplot as plt

    from lossmap.figures.history import kinds_of_lines, training_history
    from lossmap.figures.style import legend_below, log_ticks

    models, connectors, networks = (list(table[name].unique()) for name in ("model", "connector", "decoder"))
    shares = sorted(table["training_share"].unique(), reverse=True)
    size = (2.1 * len(models) + 0.8, 1.9 * len(connectors) + 0.4)
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
    return figure
