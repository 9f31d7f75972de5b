"""One look for all figures: readable in print, and by the colour-blind."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import seaborn as sns

# Colours that stay apart for every common colour vision, and markers so that colour is never the only sign.
COLOURS = sns.color_palette("colorblind").as_hex()
MARKERS = "osD^vPX*"
KEPT, LOST = COLOURS[0], COLOURS[1]


def use_style() -> None:
    """Set the look. Called once by each step that draws."""
    sns.set_theme(context="paper", style="ticks", palette=COLOURS, font_scale=1.1)
    # Type 42 embeds fonts as text; a fixed salt and no date make the same figure the same file.
    mpl.use("agg")
    mpl.rcParams.update({"pdf.fonttype": 42, "svg.hashsalt": "lossmap", "savefig.bbox": "tight"})


def save(figure: plt.Figure, pdf: Path, png: Path) -> None:
    """Save a figure for print (PDF) and for the report (PNG, 200 dots per inch)."""
    figure.savefig(pdf, metadata={"CreationDate": None})
    figure.savefig(png, dpi=200, metadata={"Software": None})
    plt.close(figure)
