"""The ladder: what each reconstructor leaves unexplained, and what the best one leaves of each connector."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.lines import Line2D

from lossmap.figures.style import COLOURS, MARKERS, NOT_CONVERGED, points_with_intervals

KINDS = {
    "own": {"color": "black", "marker": "o"},
    "lossless": {"color": COLOURS[0], "marker": "s"},
    "lossy": {"color": COLOURS[1], "marker": "D"},
}


def hollow_marks() -> dict[str, Line2D]:
    """What the hollow marks of `ladder_by_rung` mean, for a legend."""
    marks = {"linestyle": "none", "color": "grey", "marker": "o", "fillstyle": "none"}
    sizes = {"fewer training images": 5, "lowest held-out error": 11}
    hollow = {label: Line2D([], [], markersize=size, **marks) for label, size in sizes.items()}
    return hollow | {"not converged, no evidence": Line2D([], [], **NOT_CONVERGED)}


def ladder_by_rung(axes: plt.Axes, table: pd.DataFrame, linear: tuple[str, ...]) -> None:
    """FVU by rung at the largest share of images: the model's connector as a thick line, lossless controls as thin.

    Of lossless controls those are drawn on which networks were trained. Hollow marks: smaller shares.
    Bars: intervals over images. A ring marks the rung with the lowest held-out error.
    A cross marks a network that has not converged.
    table: one model of table ladder, with columns connector, kind, lossless, rung, share, fvu, fvu_low, fvu_high, best,
    converged. linear: the rungs that no network was trained for.
    """
    rungs = list(table.loc[table["kind"] == "own", "rung"].unique())
    controls = 0
    for connector, rows in table.groupby("connector", sort=False):
        own = rows["kind"].iloc[0] == "own"
        if not own and not (rows["lossless"].iloc[0] and set(rows["rung"]) - set(linear)):
            continue
        label, how = "model's connector", {**KINDS["own"], "zorder": 3}
        if not own:
            colour, marker = COLOURS[controls % len(COLOURS)], MARKERS[1:][controls % len(MARKERS[1:])]
            label, how = f"{_words(connector)} (lossless)", {"color": colour, "marker": marker, "zorder": 2}
            controls += 1
        rows = rows.assign(place=[rungs.index(rung) for rung in rows["rung"]]).sort_values("place")
        full, less = rows[rows["share"] == rows["share"].max()], rows[rows["share"] < rows["share"].max()]
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
    axes.set_xticks(range(len(rungs)), [_words(rung) for rung in rungs], rotation=40, ha="right")
    axes.axhline(1, color="grey", linewidth=0.8, linestyle="--", zorder=1)
    axes.set_ylim(bottom=0)


def best_by_connector(axes: plt.Axes, table: pd.DataFrame) -> None:
    """FVU that the best rung leaves of each connector, with its value and the rung's name: the model's own first, then
    the controls in the table's order, the same for every model, for panels share their names.

    A cross shows what theory says that the best linear reconstruction leaves, where it says so.
    table: one model of table ladder, with columns connector, kind, lossless, rung, known_fvu, fvu, fvu_low, fvu_high,
    best.
    """
    rows = table[table["best"]].sort_values("kind", key=lambda kind: kind != "own", kind="stable")
    rows, names = rows.reset_index(drop=True), []
    for place, row in rows.iterrows():
        which = "own" if row["kind"] == "own" else "lossless" if row["lossless"] else "lossy"
        names.append("model's connector" if which == "own" else _words(row["connector"]))
        interval = row["fvu_low"], row["fvu_high"]
        points_with_intervals(axes, row["fvu"], place, *interval, "x", markersize=5.5, **KINDS[which])
        side, align = (-1, "right") if row["fvu"] > 0.6 else (1, "left")
        axes.annotate(
            f"{row['fvu']:.3f}, {_words(row['rung'])}", (row["fvu"], place), xytext=(7 * side, 0),
            textcoords="offset points", ha=align, va="center", fontsize=8,
        )  # fmt: skip
    known = {"linestyle": "none", "marker": "x", "color": "grey", "markersize": 5, "zorder": 4}
    axes.plot(rows["known_fvu"], rows.index, label="linear, by theory", **known)
    for which in ("lossless", "lossy"):
        axes.plot([], [], linestyle="none", label=f"{which} control, by its best", **KINDS[which])
    axes.set_yticks(rows.index, names)
    axes.set(xlim=(-0.03, 1.05), ylim=(len(rows) - 0.5, -0.5))
    axes.axvline(1, color="grey", linewidth=0.8, linestyle="--", zorder=1)


def _words(name: str) -> str:
    return name.replace("_", " ")
