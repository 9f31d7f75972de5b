"""Tables as people get them: CSV to compute with, the same as HTML to look at, and the finding in a sentence."""

import html
from pathlib import Path

import pandas as pd

from lossmap.study.columns import column

# What no number of Lossmap's can be read without: below each table, and on the report's first page.
VIEW = (
    "Every model is shown one square view of an image, not the views that it takes by itself. Qwen, Idefics, SmolVLM "
    "and Mistral models: the whole image squashed to a square (Qwen2.5-VL: 144 tokens instead of 345 for a photograph "
    "of 640 x 427 pixels, at image_size 336). LLaVA: the centre crop, or the whole image between margins, as its image "
    "processor says. The others: the whole image resized to a square, as they do themselves, without tiles."
)
STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222}h1{font-size:1.2rem}p{max-width:60rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{padding:.25rem .75rem;text-align:left}th{border-bottom:2px solid #222;vertical-align:bottom;white-space:normal}
th small{display:block;font-weight:normal;color:#666}th[title]{cursor:help}
.number{text-align:right}tbody tr:nth-child(even){background:#f4f4f4}"""


def read_all(paths: list[Path]) -> pd.DataFrame:
    """Parquet tables of all models and datasets, one below the other."""
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table with six significant digits: the same bytes for the same numbers."""
    frame.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def write_html(frame: pd.DataFrame, path: Path, title: str, note: str, digits: int = 3) -> None:
    """Write a table as a page of its own, with what models see of an image. note: what the columns mean, in a sentence
    or two; digits: decimal places.

    Headers say the unit, and more where the mouse rests on them: see `lossmap.study.columns`.
    """
    kinds = [' class="number"' * pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns]
    columns = "".join(_header(str(name), kind) for kind, name in zip(kinds, frame.columns, strict=True))
    rows = "".join(
        f"<tr>{''.join(_cell(value, digits) for value in row)}</tr>\n" for row in frame.itertuples(index=False)
    )
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style>\n<h1>{html.escape(title)}</h1>\n<p>{html.escape(note)}</p>\n"
        f"<table><thead><tr>{columns}</tr></thead><tbody>\n{rows}</tbody></table>\n<p>{VIEW}</p></html>\n"
    )


def _header(name: str, kind: str) -> str:
    meaning = column(name)
    if meaning is None:
        return f"<th{kind}>{html.escape(name)}</th>"
    text = meaning.help + (f"; higher: {meaning.higher}" if meaning.higher else "")
    unit = f"<small>{html.escape(meaning.unit)}</small>" if meaning.unit else ""
    return f'<th{kind} title="{html.escape(text)}">{html.escape(name)}{unit}</th>'


def _cell(value, digits: int) -> str:
    if pd.isna(value):
        return '<td class="number">–</td>'
    if isinstance(value, str):
        return f"<td>{html.escape(value)}</td>"
    text = f"{value:.{digits}f}" if isinstance(value, float) else str(value)
    return f'<td class="number">{text}</td>'


def with_interval(frame: pd.DataFrame, name: str, low: str, high: str, digits: int) -> pd.Series:
    """A column of values with their intervals, as `interval_text`."""
    values = zip(frame[name], frame[low], frame[high], strict=True)
    return pd.Series([interval_text(*row, digits) for row in values], index=frame.index)


def interval_text(value: float, low: float, high: float, digits: int) -> str:
    """A value with its interval: "0.53 [0.51, 0.55]", "0.53" where it has none, or "–" where there is no value."""
    if pd.isna(value):
        return "–"
    return f"{value:.{digits}f}" + ("" if pd.isna(low) else f" [{low:.{digits}f}, {high:.{digits}f}]")


def p_value(p: float, *, at_floor: bool) -> str:
    """A p-value in two digits: "0.013"; "<= 0.0002" at the floor of its test, of which it is an upper bound; "–"."""
    return "–" if pd.isna(p) else f"{'<= ' * bool(at_floor)}{p:.2g}"


def p_values(frame: pd.DataFrame, name: str, at_floor: str | None = None) -> pd.Series:
    """A column of p-values as text, None where there is none. at_floor: the column that says which are upper bounds.

    Its default is NAME_at_floor. Of p-values that were adjusted for their number it is that of the p-values themselves:
    what bounds one bounds the other.
    """
    pairs = zip(frame[name], frame[at_floor or f"{name}_at_floor"], strict=True)
    return pd.Series(
        [None if pd.isna(p) else p_value(p, at_floor=flag) for p, flag in pairs], index=frame.index, dtype=object
    )


def about_copies(table: pd.DataFrame) -> list[str]:
    """A sentence for each dataset and model with images that equal others. table: dataset, model, n, images, copies."""
    lines = []
    for place, group in table.groupby(["dataset", "images", "copies"], sort=False):
        dataset, images, copies = place
        if copies:
            left = " and left out" if group["n"].max() < images else ", and counted like all others"
            lines.append(f"On {dataset}, {copies} of {images} images are copies of another{left}.")
    return lines


def marked(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column of names, "mlp (not converged)" where the frame's column `converged` is false."""
    return frame[name].where(frame["converged"], frame[name] + " (not converged)")
