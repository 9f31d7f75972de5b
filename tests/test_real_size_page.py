"""The page on real size says what its table holds, and the table what was run."""

import json

import pandas as pd
import pytest
from real_size.checkpoint import PUBLISHED
from real_size.page import DOCS, TABLE, summary
from test_real_size import ALIKE, COLUMNS, SIZES

from lossmap.vlm.families import FAMILIES
from lossmap.vlm.preprocessing import read_preprocessor


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(DOCS / "real-size.csv")


def test_the_pages_table_is_that_of_the_figures(table):
    assert TABLE.findall((DOCS / "real-size.md").read_text()) == [summary(table)]


def test_each_photograph_was_seen_by_each_model_once_and_alike_where_it_was_compared(table):
    assert list(table.columns) == COLUMNS
    for name, rows in table.groupby("model"):
        assert sorted(zip(rows["width"], rows["height"], strict=True)) == sorted(SIZES)
        assert set(rows["checkpoint"]) == {PUBLISHED[name]["hub"]}
        assert rows["difference"].notna().any()
        assert rows["difference"].dropna().max() < ALIKE
        assert rows["foreign_rows"].dropna().max() == 0


@pytest.mark.parametrize("name", PUBLISHED)
def test_tokens_are_those_that_the_published_settings_make(table, tmp_path, name):
    for file, part in (("config.json", "config"), ("preprocessor_config.json", "processor")):
        (tmp_path / file).write_text(json.dumps(PUBLISHED[name][part]))
    made = read_preprocessor(tmp_path, view="processor")
    for row in table[table["model"] == name].itertuples():
        shape = made.layout(row.width, row.height).shape if hasattr(made, "layout") else None
        patches, tokens = (shape.patches, shape.tokens) if shape else (made.grid[0] * made.grid[1],) * 2
        assert (row.patches, row.tokens) == (patches, tokens)


def test_names_of_the_published_vision_sides_are_those_that_lossmap_reads():
    for about in PUBLISHED.values():
        family = FAMILIES[about["config"]["model_type"]]
        assert sorted(key.removeprefix("model.") for key in about["vision"]) == sorted(family.vision_keys)
        assert about["connectors"][0] == family.connector
