"""One look for all figures: readable in print, and by the colour-blind."""

import re
from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.container import ErrorbarContainer
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

# Colours that stay apart for every common colour vision, and markers so that colour is never the only sign.
COLOURS = sns.color_palette("colorblind").as_hex()
MARKERS = "osD^vPX*<>phd"
NOT_CONVERGED = {"linestyle": "none", "marker": "x", "color": COLOURS[3], "markersize": 9, "markeredgewidth": 1.5}
KEPT, LOST = COLOURS[0], COLOURS[1]


def use_style(palette: str = "colorblind") -> None:
    """Set the look. Called once by each step that draws. palette: of seaborn, by name."""
    COLOURS[:] = sns.color_palette(palette).as_hex()
    sns.set_theme(context="paper", style="ticks", palette=COLOURS, font_scale=1.1)
    # Type 42 embeds fonts as text; a fixed salt and no date make the same figure the same file.
    mpl.use("agg")
    mpl.rcParams.update({"pdf.fonttype": 42, "svg.hashsalt": "lossmap", "savefig.bbox": "tight"})


def points_with_intervals(axes: plt.Axes, x, y, low, high, along: str, **how) -> ErrorbarContainer:
    """Points (x, y) with an interval from low to high along "x" or "y". Other settings are those of `Axes.errorbar`.

    Of few items a percentile bootstrap interval need not hold the value itself, which `errorbar` refuses to draw.
    """
    x, y, low, high = (np.atleast_1d(np.asarray(values, dtype=float)) for values in (x, y, low, high))
    middle, half = (low + high) / 2, (high - low) / 2
    if along == "x":
        drawn = axes.errorbar(middle, y, xerr=half, **how)
        drawn[0].set_xdata(x)
    else:
        drawn = axes.errorbar(x, middle, yerr=half, **how)
        drawn[0].set_ydata(y)
    axes.update_datalim(np.column_stack([x, y]))
    axes.autoscale_view()
    return drawn


def log_ticks(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis, as many as there is room for: powers of ten, or between them too.

    To be called when all is drawn, for it goes by what is in view.
    """
    low, high = sorted(axis.get_view_interval())
    if high / low < 6:
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def legend_below(figure: plt.Figure, labelled: dict[str, Artist], columns: int, fontsize: str | None = None) -> None:
    """Under the whole figure, what its marks mean: label -> mark."""
    where = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "ncols": columns}
    figure.legend(labelled.values(), labelled, frameon=False, fontsize=fontsize, **where)


def legends_below(row: Iterable[plt.Axes]) -> None:
    """Under each panel of the last row, what its marks mean."""
    for panel in row:
        handles, labels = panel.get_legend_handles_labels()
        # Five and a half lines below the panel: clear of the axis' numbers and name, however high the panel is.
        where = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 5.5}
        panel.legend(handles, labels, ncols=2, frameon=False, fontsize=7, **where)


def rename(figure: plt.Figure, names: dict[str, str]) -> None:
    """Call what a figure shows otherwise, wherever it stands as a word: in titles, legends, labels of ticks."""
    if not names:
        return
    words = re.compile("|".join(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])" for name in names))

    def other(text: str) -> str:
        return words.sub(lambda found: names[found[0]], text)

    ticks = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        if any(words.search(label) for label in labels):
            axis.set_ticks(axis.get_ticklocs(), [other(label) for label in labels])
        ticks |= set(axis.get_ticklabels())
    for text in figure.findobj(Text):
        if text not in ticks:
            text.set_text(other(text.get_text()))


def save(figure: plt.Figure, pdf: Path, png: Path) -> None:
    """Save a figure for print (PDF) and for the report (PNG, 200 dots per inch)."""
    figure.savefig(pdf, metadata={"CreationDate": None})
    figure.savefig(png, dpi=200, metadata={"Software": None})
    plt.close(figure)
