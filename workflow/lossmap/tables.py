"""Tables as people get them: CSV to compute with, the same as HTML to look at, and the finding in a sentence."""

import html
from pathlib import Path

import pandas as pd

STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222}h1{font-size:1.2rem}p{max-width:60rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{padding:.25rem .75rem;text-align:left}th{border-bottom:2px solid #222;vertical-align:bottom}
.number{text-align:right}tbody tr:nth-child(even){background:#f4f4f4}"""


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table with six significant digits: the same bytes for the same numbers."""
    frame.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def write_html(frame: pd.DataFrame, path: Path, title: str, note: str, digits: int = 3) -> None:
    """Write a table as a page of its own. note: what the columns mean, in a sentence or two; digits: decimal places."""
    kinds = [' class="number"' * pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns]
    names = [html.escape(str(name)) for name in frame.columns]
    columns = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, names, strict=True))
    rows = "".join(
        f"<tr>{''.join(_cell(value, digits) for value in row)}</tr>\n" for row in frame.itertuples(index=False)
    )
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style>\n<h1>{html.escape(title)}</h1>\n<p>{html.escape(note)}</p>\n"
        f"<table><thead><tr>{columns}</tr></thead><tbody>\n{rows}</tbody></table></html>\n"
    )


def _cell(value, digits: int) -> str:
    if pd.isna(value):
        return '<td class="number">–</td>'
    if isinstance(value, str):
        return f"<td>{html.escape(value)}</td>"
    text = f"{value:.{digits}f}" if isinstance(value, float) else str(value)
    return f'<td class="number">{text}</td>'


def with_interval(frame: pd.DataFrame, name: str, low: str, high: str, digits: int) -> pd.Series:
    """A column of values with their intervals, as text: "0.53 [0.51, 0.55]", or "–" where there is no value."""

    def text(value, low, high) -> str:
        return "–" if pd.isna(value) else f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    return pd.Series([text(*row) for row in zip(frame[name], frame[low], frame[high], strict=True)], index=frame.index)


def marked(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column of names, "mlp (not converged)" where the frame's column `converged` is false."""
    return frame[name].where(frame["converged"], frame[name] + " (not converged)")
