"""Tables as people get them: CSV to compute with, and a page to look at."""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from jinja2 import Environment, StrictUndefined

from lossmap.study.columns import column, titled
from lossmap.vlm.view_limits import PROCESSOR, SQUARE, View

LIMITED = "limits"
MEANING = {
    PROCESSOR: "As the model's own image processor shows them, in one view of a fixed size, in the image's own shape or"
    " in tiles: {}.",
    LIMITED: "So, within limits: {}.",
    SQUARE: "In one square view of each image, which is not how the model is used: {}.",
}
PAGE = Path(__file__).with_suffix(".html")


def how_seen(views: Mapping[str, View]) -> str:
    """How each model sees images, without which no number of a study can be read.

    Parameters: views, of each model by name.
    """
    names: dict[str, list[str]] = {}
    for model, view in views.items():
        names.setdefault(view if isinstance(view, str) else LIMITED, []).append(_told(model, view))
    said = [MEANING[kind].format(", ".join(names[kind])) for kind in MEANING if kind in names]
    return " ".join(["How images are seen.", *said])


def _told(model: str, view: View) -> str:
    if isinstance(view, str):
        return model
    return f"{model} ({', '.join(f'{name} {value:,}' for name, value in view.items())})"


def read_all(paths: list[Path]) -> pd.DataFrame:
    """Parquet tables of all models and datasets, one below the other."""
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table with six significant digits: the same bytes for the same numbers."""
    frame.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def cells(table: pd.DataFrame, names: list[str]) -> dict[str, pd.Series]:
    """Columns of a table as a page shows them: title -> text or numbers.

    names: of the table's columns. A value stands with its interval where the table has one (NAME_low, NAME_high), and
    an interval without a value as a range; a p-value that is an upper bound (NAME_at_floor) with "<=". Columns that the
    table lacks, or that hold nothing, are left out.
    """
    return {_title(name): _cell(table, name) for name in names if _holds(table, name)}


def _holds(table: pd.DataFrame, name: str) -> bool:
    present = [one for one in (name, f"{name}_low") if one in table]
    return bool(present) and table[present[0]].notna().any()


def _title(name: str) -> str:
    """A column's title, with the numbers of its name: recall_at_5 -> R@5."""
    about, numbers = column(name), [part for part in name.replace("overlap_k", "overlap_").split("_") if part.isdigit()]
    if about is None:
        return name
    if name.startswith("overlap_k"):
        return f"{about.title}, k = {numbers[0]}"
    return about.title.replace("R@r", f"R@{numbers[0]}") if numbers else about.title


def _cell(table: pd.DataFrame, name: str) -> pd.Series:
    about = column(name)
    if name not in table:
        ends = zip(table[f"{name}_low"], table[f"{name}_high"], strict=True)
        return pd.Series([f"{low:.3f} to {high:.3f}" for low, high in ends], index=table.index)
    values = table[name]
    if about and about.words:
        return values.map(lambda value: about.words.get(value, value), na_action="ignore")
    if name.endswith(("_p", "_p_adjusted")):
        return p_values(table, name, f"{name.removesuffix('_adjusted')}_at_floor")
    if f"{name}_low" in table:
        return with_interval(table, name, about.digits if about else 3)
    if about and pd.api.types.is_float_dtype(values):
        return values.map(f"{{:.{about.digits}f}}".format, na_action="ignore")
    return values


def write_page(
    frame: pd.DataFrame, path: Path, title: str, findings: str, caption: str, note: str, view: str = ""
) -> None:
    """Write a table as a page of its own.

    findings: what the table says in short, in HTML; caption: all that it says, below the table; note: what its
    columns mean, in a sentence or two; view: how models see images (`how_seen`). Headers say the unit, and more
    where the mouse rests on them: see `lossmap.study.columns`. They and the first column stay in view; rows can be
    sorted and filtered. One file, without network.
    """
    headers = [_header(str(name), frame[name]) for name in frame.columns]
    rows = [[_shown(value) for value in row] for row in frame.itertuples(index=False)]
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(PAGE.read_text(encoding="utf-8"))
    text = page.render(
        title=title, findings=findings, caption=caption, note=note, view=view, headers=headers, rows=rows
    )
    path.write_text(text + "\n", encoding="utf-8")


def _header(title: str, values: pd.Series) -> dict:
    about = titled(title)
    shown = {"name": title, "numeric": all(_shown(value)["numeric"] for value in values)}
    if about is None:
        return {**shown, "unit": "", "help": ""}
    text = about.help + (f"; higher: {about.higher}" if about.higher else "")
    return {**shown, "unit": about.unit, "help": text}


def _shown(value) -> dict:
    if pd.isna(value):
        return {"text": "–", "numeric": True}
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return {"text": text, "numeric": bool(re.match(r"(<= )?-?\d|–$", text))}


def with_interval(frame: pd.DataFrame, name: str, digits: int) -> pd.Series:
    """A column of values with their intervals, NAME_low and NAME_high, as `interval_text`."""
    values = zip(frame[name], frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
    return pd.Series([interval_text(*row, digits) for row in values], index=frame.index, dtype=object)


def interval(row, name: str, digits: int) -> str:
    """One value of a row with its interval, NAME_low and NAME_high, as `interval_text`. row: a Series or a dict."""
    return interval_text(row[name], row[f"{name}_low"], row[f"{name}_high"], digits)


def interval_text(value: float, low: float, high: float, digits: int) -> str:
    """A value with its interval: "0.53 [0.51, 0.55]", "0.53" where it has none, or "–" where there is no value."""
    if pd.isna(value):
        return "–"
    # "z": of -0.0001 no -0.000
    return f"{value:z.{digits}f}" + ("" if pd.isna(low) else f" [{low:z.{digits}f}, {high:z.{digits}f}]")


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
    """A line for each dataset with images that equal others. table: dataset, n, images, copies."""
    lines = []
    for place, group in table.groupby(["dataset", "images", "copies"], sort=False):
        dataset, images, copies = place
        if copies:
            left = " and left out" if group["n"].max() < images else ", and counted like all others"
            lines.append(f"- On {dataset}, {copies} of {images} images are copies of another{left}.")
    return lines


def marked(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column of names, "mlp (not converged)" where the frame's column `converged` is false."""
    return frame[name].where(frame["converged"], frame[name] + " (not converged)")
