"""What the tables on loss and score share: the partial statistic first, the raw one after it, each with its tests."""

import pandas as pd

from lossmap.measures.relations import adjusted_p
from lossmap.study.tables import p_values, with_interval

# p -> the same adjusted (Benjamini-Hochberg); each column is one family.
ADJUSTED = {
    "partial_p": "partial_p_adjusted",
    "p_permutation": "p_adjusted",
    "partial_difference_p": "partial_difference_p_adjusted",
    "difference_p": "difference_p_adjusted",
}


def with_adjusted_p(table: pd.DataFrame) -> pd.DataFrame:
    """Relations of all models and datasets, with the adjusted p of every test."""
    return table.assign(**{adjusted: adjusted_p(table[p]) for p, adjusted in ADJUSTED.items()})


def correlations(table: pd.DataFrame) -> dict:
    """Partial and raw rank correlation as columns to read, each with interval, p and adjusted p."""
    return {
        "partial rho": with_interval(table, "rho_partial", "partial_low", "partial_high", 3),
        **_tests(table, "partial rho", "partial_p"),
        "raw rho": with_interval(table, "rho", "low", "high", 3),
        **_tests(table, "raw rho", "p_permutation"),
    }


def differences(table: pd.DataFrame, title: str, digits: int) -> dict:
    """Partial and raw difference of means as columns to read, each with interval, p and adjusted p."""
    columns = {}
    for kind, name in (("partial", "partial_difference"), ("raw", "difference")):
        columns[f"{kind} {title}"] = with_interval(table, name, f"{name}_low", f"{name}_high", digits)
        columns |= _tests(table, f"{kind} {title}", f"{name}_p")
    return columns


def reasons(table: pd.DataFrame, *names: str) -> list[str | None]:
    """Why something in a row is undefined, by the columns that say so; None where nothing is."""
    rows = table[list(names)].itertuples(index=False)
    return ["; ".join(dict.fromkeys(filter(None, row))) or None for row in rows]


def _tests(table: pd.DataFrame, statistic: str, p: str) -> dict:
    flags = f"{p}_at_floor"
    return {f"p, {statistic}": p_values(table, p), f"adjusted p, {statistic}": p_values(table, ADJUSTED[p], flags)}
