"""The ladder: what each reconstructor leaves unexplained, and what the best one leaves of each connector."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D

from lossmap.figures.style import COLOURS, MARKERS, NOT_CONVERGED, log_ticks, points_with_intervals

KINDS = {
    "own": {"color": "black", "marker": "o"},
    "lossless": {"color": COLOURS[0], "marker": "s"},
    "lossy": {"color": COLOURS[1], "marker": "D"},
}


FLOOR = 1e-3  # FVU below it is drawn at it, and written as such: a lossless control may leave 1e-9
# What a control does to the embeddings before the connector, by its kind.
DOES = {
    "identity": "nothing is changed",
    "rotation": "a random rotation",
    "invertible_mlp": "a random invertible network",
    "pca": "leading principal components",
    "pooling": "the mean of each 2x2 patches",
    "other_image": "the output of another image",
    "other_image_and_patch": "of another image, at another place",
}


def hollow_marks() -> dict[str, Line2D]:
    """What the hollow marks of `ladder_by_decoder` mean, for a legend."""
    marks = {"linestyle": "none", "color": "grey", "marker": "o", "fillstyle": "none"}
    sizes = {"fewer training images": 5, "lowest held-out error": 11}
    hollow = {label: Line2D([], [], markersize=size, **marks) for label, size in sizes.items()}
    return hollow | {"not converged, no evidence": Line2D([], [], **NOT_CONVERGED)}


def ladder_by_decoder(axes: plt.Axes, table: pd.DataFrame, linear: tuple[str, ...]) -> None:
    """FVU by decoder at the largest share of images, on a logarithmic axis: the model's connector as a thick line,
    lossless controls as thin. Decoders: those that need no training, then networks by their number of parameters.

    Of lossless controls those are drawn on which networks were trained. Hollow marks: smaller shares.
    Bars: intervals over images. A ring marks the decoder with the lowest held-out error.
    A cross marks a network that has not converged.
    table: one model of table ladder, with columns connector, connector_kind, lossless, decoder, training_share,
    parameters, fvu, fvu_low, fvu_high, best, converged. linear: the decoders that need no training.
    """
    table = at_the_floor(table)
    own = table[table["connector_kind"] == "own"].drop_duplicates("decoder")
    networks = own[~own["decoder"].isin(linear)].sort_values("parameters", kind="stable")
    decoders = [*own.loc[own["decoder"].isin(linear), "decoder"], *networks["decoder"]]
    controls = 0
    for connector, rows in table.groupby("connector", sort=False):
        own = rows["connector_kind"].iloc[0] == "own"
        if not own and not (rows["lossless"].iloc[0] and set(rows["decoder"]) - set(linear)):
            continue
        label, how = "model's connector", {**KINDS["own"], "zorder": 3}
        if not own:
            colour, marker = COLOURS[controls % len(COLOURS)], MARKERS[1:][controls % len(MARKERS[1:])]
            label, how = f"{_words(connector)} (lossless)", {"color": colour, "marker": marker, "zorder": 2}
            controls += 1
        rows = rows.assign(place=[decoders.index(name) for name in rows["decoder"]]).sort_values("place")
        whole = rows["training_share"] == rows["training_share"].max()
        full, less = rows[whole], rows[~whole]
        width, size = (2.2, 6) if own else (1.2, 5)
        points_with_intervals(
            axes, full["place"], full["fvu"], full["fvu_low"], full["fvu_high"], "y",
            linewidth=width, markersize=size, label=label, **how,
        )  # fmt: skip
        axes.plot(less["place"], less["fvu"], linestyle="none", fillstyle="none", markersize=size, **how)
        best = full[full["best"]]
        ring = {"marker": "o", "fillstyle": "none", "markersize": size + 6, "linestyle": "none", "zorder": 4}
        axes.plot(best["place"], best["fvu"], color=how["color"], **ring)
        unfinished = rows[~rows["converged"]]
        axes.plot(unfinished["place"], unfinished["fvu"], zorder=5, **NOT_CONVERGED)
    sizes = dict(zip(networks["decoder"], networks["parameters"], strict=True))
    names = [_words(name) + (f" ({_short(sizes[name])})" if name in sizes else "") for name in decoders]
    axes.set_xticks(range(len(decoders)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_xlim(-0.5, len(decoders) - 0.5)
    axes.axhline(1, color="grey", linewidth=0.8, linestyle="--", zorder=1)
    axes.set_yscale("log")
    log_ticks(axes.yaxis)


def best_by_connector(axes: plt.Axes, table: pd.DataFrame) -> None:
    """FVU that the best decoder leaves of each connector, with its value and the decoder's name: the model's own first,
    then the controls in the table's order, the same for every model, for panels share their names.

    A cross shows what theory says that the best linear reconstruction leaves, where it says so. Names say what a
    control does. Values below FLOOR are drawn at it.
    table: one model of table ladder, with columns connector, connector_kind, lossless, decoder, known_fvu, fvu,
    fvu_low, fvu_high, best.
    """
    table = at_the_floor(table)
    rows = table[table["best"]].sort_values("connector_kind", key=lambda kind: kind != "own", kind="stable")
    rows, names = rows.reset_index(drop=True), []
    for place, row in rows.iterrows():
        which = "own" if row["connector_kind"] == "own" else "lossless" if row["lossless"] else "lossy"
        names.append(
            "model's connector" if which == "own" else f"{_words(row['connector'])}\n{DOES[row['connector_kind']]}"
        )
        interval = row["fvu_low"], row["fvu_high"]
        points_with_intervals(axes, row["fvu"], place, *interval, "x", markersize=5.5, **KINDS[which])
        side, align = (-1, "right") if row["fvu"] > 0.03 else (1, "left")
        value = f"under {FLOOR:g}" if row["fvu"] <= FLOOR else f"{row['fvu']:.3f}"
        axes.annotate(
            f"{value}\n{_words(row['decoder'])}", (row["fvu"], place), xytext=(6 * side, 0),
            textcoords="offset points", ha=align, va="center", fontsize=7, linespacing=1,
        )  # fmt: skip
    known = {"linestyle": "none", "marker": "x", "color": "grey", "markersize": 5, "zorder": 4}
    axes.plot(rows["known_fvu"], rows.index, label="linear, by theory", **known)
    for which in ("lossless", "lossy"):
        axes.plot([], [], linestyle="none", label=f"{which} control, by its best", **KINDS[which])
    axes.set_yticks(rows.index, names, fontsize=7, linespacing=1)
    axes.tick_params(axis="x", labelsize=8)
    axes.set(xscale="log", xlim=(0.7 * FLOOR, 1.6), ylim=(len(rows) - 0.5, -0.5))
    log_ticks(axes.xaxis)
    axes.axvline(1, color="grey", linewidth=0.8, linestyle="--", zorder=1)


def at_the_floor(table: pd.DataFrame) -> pd.DataFrame:
    """The table with nothing below FLOOR, for logarithmic axes."""
    columns = [name for name in ("fvu", "fvu_low", "fvu_high", "known_fvu") if name in table]
    return table.assign(**{name: table[name].clip(lower=FLOOR) for name in columns})


def _short(count: int) -> str:
    """1234567 -> 1.23M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)


def _words(name: str) -> str:
    return name.replace("_", " ")
