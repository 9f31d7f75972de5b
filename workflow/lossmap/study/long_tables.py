"""Long tables, a row per measure (dataset, model, measure, k, value), and the same a row per model."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from lossmap.study.tables import read_all

ROW = ["dataset", "model", "k"]
OF_A_MEASURE = {"value": "", "value_low": "_low", "value_high": "_high", "chance": "_chance"}


def long_table(paths: list[Path], measures: Iterable[str]) -> pd.DataFrame:
    """Rows of these measures, in the order of the files. paths: of summaries, with columns value, low, high, chance."""
    rows = read_all(paths).rename(columns={"low": "value_low", "high": "value_high"})
    return rows[rows["measure"].isin(list(measures))].reset_index(drop=True)


def numbers_of_neighbours(table: pd.DataFrame) -> list[int]:
    """All k of a long table, the smallest first; none if its measures have none."""
    return sorted(int(k) for k in table["k"].dropna().unique())


def wide(table: pd.DataFrame, ks: Sequence[int | None] = (None,)) -> pd.DataFrame:
    """A row per dataset, model and k: a column per measure, with MEASURE_low, MEASURE_high and MEASURE_chance.

    Measures without k stand in every row. n: the most images of any measure.
    """
    rows = []
    for (dataset, model), group in table.groupby(["dataset", "model"], sort=False):
        for k in ks:
            row = dict(zip(ROW, (dataset, model, k), strict=True)) | {"n": group["n"].max()}
            here = group["k"].isna() if k is None else group["k"].isna() | (group["k"] == k)
            for one in group[here].to_dict("records"):
                row |= {f"{one['measure']}{end}": one[name] for name, end in OF_A_MEASURE.items()}
            rows.append(row)
    return pd.DataFrame(rows)
