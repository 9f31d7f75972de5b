"""Every costly product holds what it held when its version was given; and a change of what it holds is noticed."""

import dataclasses
import json

import golden_values
import numpy as np
import pytest
from golden_products import MAKERS
from golden_values import cases, difference, problem, record, summarise

from lossmap.reconstruct import evaluation
from lossmap.study import products
from lossmap.vlm import patch_orders
from lossmap.vlm.families import FAMILIES


@pytest.mark.parametrize(("product", "family"), cases(), ids=lambda name: name or "all")
def test_a_product_holds_what_was_recorded(product, family):
    assert problem(product, family) is None, problem(product, family)


def test_every_product_and_no_other_has_golden_values():
    assert set(MAKERS) == set(products.VERSIONS)
    for product in MAKERS:
        assert set(golden_values.read(product)) == {family or "all" for name, family in cases() if name == product}
        (families_made,) = {bool(family) for name, family in cases() if name == product}
        assert families_made == (product in products.FAMILY_VERSIONS)


def test_version_numbers_count_up_from_one_and_say_what_changed():
    for versions in (*products.VERSIONS.values(), *(v for f in products.FAMILY_VERSIONS.values() for v in f.values())):
        assert list(versions) == list(range(1, len(versions) + 1))
        assert all(versions.values())
    assert set(products.FAMILY_VERSIONS) <= set(products.VERSIONS)
    assert all(set(of_product) <= set(FAMILIES) for of_product in products.FAMILY_VERSIONS.values())


# Changes that must be noticed


def another_family(monkeypatch, name, **changes):
    monkeypatch.setitem(FAMILIES, name, dataclasses.replace(FAMILIES[name], **changes))


def test_patches_in_another_order_are_noticed(monkeypatch):
    another_family(monkeypatch, "qwen2_5_vl", to_raster=patch_orders.merge_blocks)  # as if there were no windows
    found = problem("embeddings", "qwen2_5_vl")
    assert found.startswith("embeddings of qwen2_5_vl: ")
    assert "pre" in found
    for wanted in ("mend the code, or raise the version in workflow/lossmap/study/products.py", "make golden"):
        assert wanted in found
    assert problem("embeddings", "qwen2_vl") is None


def test_a_tap_of_another_scale_is_noticed(monkeypatch):
    another_family(monkeypatch, "llava", to_raster=lambda pre, config, grid: pre * 1.001)
    assert "pre, pre_mean" in problem("embeddings", "llava")


def test_another_connector_input_is_noticed_where_post_is_made_again(monkeypatch):
    another_family(monkeypatch, "llava", arguments=lambda pre, config, grid: (1.01 * pre,))
    assert problem("embeddings", "llava").startswith("embeddings of llava: post_made_again not as recorded")
    assert "patches: random" in problem("probe", "llava")


def test_another_reconstruction_is_noticed(monkeypatch):
    before = evaluation.patch_losses
    monkeypatch.setattr(evaluation, "patch_losses", lambda pre, predicted: before(pre, predicted * 1.01))
    assert "squared_error" in problem("patch_losses", None)
    assert "ladder: squared_error" in problem("ladder", None)


def test_one_other_word_is_noticed():
    words = np.array(["red", "green"])
    assert difference(summarise(words), summarise(words.copy())) == 0
    assert difference(summarise(words), summarise(np.array(["red", "blue"]))) == np.inf


@pytest.mark.parametrize("change", ["swap", "scale", "one", "nan", "shape"])
def test_a_summary_moves_with_what_it_is_of(change):
    values = np.random.default_rng(0).normal(size=(40, 8)).astype("float32")
    other = {
        "swap": values[np.r_[1, 0, 2:40]],
        "scale": values * np.float32(1.0003),
        "one": np.where(np.arange(320).reshape(40, 8) == 17, values + 0.1, values),
        "nan": np.where(np.arange(320).reshape(40, 8) == 17, np.nan, values),
        "shape": values.reshape(8, 40),
    }[change]
    assert difference(summarise(other), summarise(values)) > golden_values.TOLERANCE
    rounded = values * (1 + 1e-6 * np.random.default_rng(1).normal(size=values.shape))
    assert difference(summarise(rounded), summarise(values)) < golden_values.TOLERANCE / 10


# Recording


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The recorded statistics, in a folder of their own."""
    content = golden_values.read("statistics")
    (tmp_path / "statistics.json").write_text(json.dumps(content))
    monkeypatch.setattr(golden_values, "FOLDER", tmp_path)
    return tmp_path / "statistics.json", content


def test_values_that_differ_are_not_recorded_under_the_same_version(copied):
    path, content = copied
    content["all"]["values"]["own: pre_mean"]["numbers"][1] *= 1.01
    path.write_text(json.dumps(content))
    assert [line.partition(" (")[0] for line in record("statistics")] == ["statistics: own: pre_mean not as recorded"]
    assert golden_values.read("statistics") == content


def test_a_raised_version_asks_for_new_values_and_takes_them(copied, monkeypatch):
    monkeypatch.setitem(products.VERSIONS, "statistics", {1: "first", 2: "another"})
    assert problem("statistics", None) == (
        "statistics: its golden values are of version 1, it is 2. Record them: make golden"
    )
    assert record("statistics") == []
    assert golden_values.read("statistics")["all"]["version"] == "2"
    assert problem("statistics", None) is None


def test_a_new_family_asks_for_values(monkeypatch):
    assert problem("embeddings", "unheard_of") == (
        "embeddings of unheard_of: no golden values are recorded. Record them: make golden"
    )
