"""What the tables on loss and score share: their datasets, adjusted p-values, why something is undefined."""

from pathlib import Path

import pandas as pd

from lossmap.study.derived import evaluated
from lossmap.study.tables import read_all


def described(study: dict) -> list[str]:
    """The datasets on which captions stand beside losses."""
    return [name for name in study["captions"]["datasets"] if name in evaluated(study)]


def answered(study: dict) -> list[str]:
    """The datasets on which answers stand beside losses of the patches where the answer lies."""
    asked = [name for name in study["answers"]["datasets"] if name in evaluated(study)]
    return [name for name in asked if "masks" in study["datasets"][name]]


def _evaluated(study: dict) -> list[str]:
    return study["reconstruction"]["evaluate"] if "reconstruction" in study else []


def read_relations(paths: list[Path]) -> pd.DataFrame:
    """Relations of all models and datasets; no reason where nothing is undefined."""
    return read_all(paths).replace({"": None}).rename(columns={"reconstructor": "decoder"})


def with_adjusted_p(table: pd.DataFrame) -> pd.DataFrame:
    """Relations with the adjusted p of every test, NAME_p_adjusted beside NAME_p.

    Benjamini and Hochberg's; each column is one family.
    """
    from lossmap.measures.relations import adjusted_p

    tests = [name for name in table.columns if name.endswith("_p")]
    return table.assign(**{f"{name}_adjusted": adjusted_p(table[name]) for name in tests})


def reasons(table: pd.DataFrame, *names: str) -> list[str | None]:
    """Why something in a row is undefined, by the columns that say so; None where nothing is."""
    rows = table[list(names)].itertuples(index=False)
    return ["; ".join(dict.fromkeys(filter(pd.notna, row))) or None for row in rows]


def tests_made(table: pd.DataFrame, name: str, what: str) -> str:
    """A sentence on the family of the tests of a column. what: that is tested, in words."""
    made = int(table[f"{name}_p_adjusted"].notna().sum())
    return f"Family of tests: {made} {what}; undefined: {len(table) - made}."
