"""Long tables and their wide form: every number stands where it belongs, and pages know what their columns mean."""

import numpy as np
import pandas as pd
import pytest

from lossmap.study.columns import column, titled
from lossmap.study.exhibits import comparisons, figure6, margins, probe, random_projection, similarity, table5, table7
from lossmap.study.long_tables import long_table, numbers_of_neighbours, wide


def summary(model, measures, ks=(5, 2)):
    rows = [{"measure": "cka", "k": None, "value": 0.9, "n": 7}]
    rows += [{"measure": name, "k": k, "value": k / 10, "n": 8} for k in ks for name in measures]
    more = {"dataset": "d", "model": model, "low": 0.1, "high": 0.8, "chance": 0.05}
    return pd.DataFrame(rows).assign(**more).astype({"k": "Int64"})


def test_a_long_table_holds_the_measures_that_it_names_alone(tmp_path):
    for model in ("one", "two"):
        summary(model, ["overlap", "other"]).to_parquet(tmp_path / model)
    table = long_table([tmp_path / "one", tmp_path / "two"], ["cka", "overlap"])
    assert table["measure"].tolist() == ["cka", "overlap", "overlap"] * 2
    assert table["model"].tolist() == ["one"] * 3 + ["two"] * 3
    assert {"value_low", "value_high"} < set(table.columns)
    assert numbers_of_neighbours(table) == [2, 5]


def test_a_wide_table_has_a_row_per_model_and_k():
    table = summary("m", ["overlap"]).rename(columns={"low": "value_low", "high": "value_high"})
    found = wide(table, [2, 5])
    assert found["k"].tolist() == [2, 5]
    assert found["overlap"].tolist() == [0.2, 0.5]
    assert found["cka"].tolist() == [0.9, 0.9]  # which has no k
    assert found["n"].tolist() == [8, 8]
    assert found.loc[0, ["overlap_low", "overlap_high", "overlap_chance"]].tolist() == [0.1, 0.8, 0.05]
    assert "overlap" not in wide(table)
    assert wide(table)["cka"].tolist() == [0.9]


def test_a_title_is_known_by_as_much_of_it_as_there_is():
    assert titled("effective rank, before").title == "effective rank, before"
    assert titled("order preserved, Kendall's tau, k = 3") == column("kendall")
    assert titled("order preserved, Kendall's tau, chance").help == f"value by chance: {column('kendall').help}"
    assert titled("nothing of the kind, k = 3") is None


MODULES = [comparisons, figure6, margins, probe, random_projection, similarity, table5, table7]


@pytest.mark.parametrize("module", MODULES)
def test_a_study_without_geometry_or_pairs_has_none_of_its_exhibits(module):
    assert not module.needs({"geometry": {"datasets": []}, "compare": [], "models": {"m": {}}})
    assert [name for name in module.COLUMNS if column(name) is None] == []


def test_measures_that_are_left_of_others_sum_to_one(tmp_path):
    summary("m", ["share_near_ties", "closeness"]).to_parquet(tmp_path / "m")
    table = margins.table(margins.Settings(confidence=0.95), [tmp_path / "m"])
    assert table["measure"].tolist() == ["share_near_ties", "share_moved", "closeness"] * 2
    near, moved = (table[table["measure"] == f"share_{name}"] for name in ("near_ties", "moved"))
    np.testing.assert_allclose(near["value"].to_numpy() + moved["value"].to_numpy(), 1)
    np.testing.assert_allclose(moved[["value_low", "value_high"]], [[0.2, 0.9]] * 2)
