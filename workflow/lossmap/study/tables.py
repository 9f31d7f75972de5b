"""Tables as people get them: CSV to compute with, the same as HTML to look at, and the finding in a sentence."""

from pathlib import Path

import pandas as pd
from jinja2 import Environment, StrictUndefined

from lossmap.study.columns import column

# What no number of Lossmap's can be read without: below each table, and on the report's first page.
VIEW = (
    "Every model is shown one square view of an image, not the views that it takes by itself. Qwen, Idefics, SmolVLM "
    "and Mistral models: the whole image squashed to a square (Qwen2.5-VL: 144 tokens instead of 345 for a photograph "
    "of 640 x 427 pixels, at image_size 336). LLaVA: the centre crop, or the whole image between margins, as its image "
    "processor says. The others: the whole image resized to a square, as they do themselves, without tiles."
)
PAGE = Path(__file__).with_suffix(".html")


def read_all(paths: list[Path]) -> pd.DataFrame:
    """Parquet tables of all models and datasets, one below the other."""
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table with six significant digits: the same bytes for the same numbers."""
    frame.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def write_html(frame: pd.DataFrame, path: Path, title: str, note: str, digits: int = 3) -> None:
    """Write a table as a page of its own, with what models see of an image. note: what the columns mean, in a sentence
    or two; digits: decimal places.

    Headers say the unit, and more where the mouse rests on them: see `lossmap.study.columns`. They and the first column
    stay in view; rows can be sorted and filtered. One file, without network.
    """
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns]
    headers = [_header(str(name), kind) for name, kind in zip(frame.columns, numeric, strict=True)]
    rows = [[_cell(value, digits) for value in row] for row in frame.itertuples(index=False)]
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(PAGE.read_text(encoding="utf-8"))
    text = page.render(title=title, note=note, view=VIEW, headers=headers, rows=rows)
    path.write_text(text + "\n", encoding="utf-8")


def _header(name: str, numeric: bool) -> dict:
    meaning = column(name)
    if meaning is None:
        return {"name": name, "numeric": numeric, "unit": "", "help": ""}
    text = meaning.help + (f"; higher: {meaning.higher}" if meaning.higher else "")
    return {"name": name, "numeric": numeric, "unit": meaning.unit, "help": text}


def _cell(value, digits: int) -> dict:
    if pd.isna(value):
        return {"text": "–", "numeric": True}
    if isinstance(value, str):
        return {"text": value, "numeric": False}
    return {"text": f"{value:.{digits}f}" if isinstance(value, float) else str(value), "numeric": True}


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
