"""The table of docs/real-size.md, made of docs/real-size.csv: `python tests/real_size/page.py` writes it."""

import json
import re
from pathlib import Path

import pandas as pd

DOCS = Path(__file__).parents[2] / "docs"
SHOWN = ((640, 427), (1920, 1080))  # width and height of the photographs whose figures the page shows
TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)  # the page has one


def summary(table: pd.DataFrame) -> str:
    """A Markdown table with a line for each published model. table: as `make test-real-size` writes it."""
    photographs = [f"{width} x {height}: tokens, core seconds, GiB" for width, height in SHOWN]
    titles = ["model", "parameters", "GiB to open", "tokens of an image", *photographs, "compared", "difference"]
    published = json.loads(Path(__file__).with_name("published.json").read_text())
    lines = [titles, ["---"] * len(titles)]
    for name in published:
        rows = table[table["model"] == name]
        lines.append([name, *(_figures(rows) if len(rows) else ["not run"] + [""] * (len(titles) - 2))])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _figures(rows: pd.DataFrame) -> list[str]:
    first, compared = rows.iloc[0], rows["difference"].dropna()
    least, most = rows["tokens"].min(), rows["tokens"].max()
    cells = [f"{first['parameters'] / 1e9:.2f} billion", f"{first['opening_peak_gib']:.1f}"]
    cells.append(f"{least:,}" if least == most else f"{least:,} to {most:,}")
    for width, height in SHOWN:
        (row,) = rows[(rows["width"] == width) & (rows["height"] == height)].itertuples()
        taken = "not measured" if pd.isna(row.core_seconds) else f"{row.core_seconds:.0f}"
        cells.append(f"{row.tokens:,}, {taken}, {row.peak_gib:.1f}")
    return [*cells, f"{len(compared)} of {len(rows)}", f"{compared.max():.3f}" if compared.max() else "none"]


if __name__ == "__main__":
    page = DOCS / "real-size.md"
    made = summary(pd.read_csv(DOCS / "real-size.csv"))
    page.write_text(TABLE.sub(made, page.read_text(), count=1))
