"""Keys and provenance: what belongs to a key, what to neither, and what readers are told."""

import dataclasses
import json
import subprocess

import pytest

from lossmap.study import products, provenance
from lossmap.study.products import family_key, product_key, product_version
from lossmap.vlm.families import FAMILIES, Family


def test_a_key_names_product_version_and_family():
    assert product_key("ladder") == {"product": "ladder", "version": product_version("ladder")}
    key = product_key("captions", "llava")
    assert key["family"]["name"] == "llava"
    assert key["family"]["entry"]["connector"] == "multi_modal_projector"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_key_is_json_and_its_own(family):
    key = family_key("embeddings", family)
    assert json.loads(json.dumps(key)) == key
    others = [json.dumps(family_key("embeddings", other)) for other in FAMILIES if other != family]
    assert json.dumps(key) not in others


def test_a_familys_version_is_that_of_the_product(monkeypatch):
    monkeypatch.setitem(products.FAMILY_VERSIONS["embeddings"], "llava", {1: "first", 2: "another", 3: "a third"})
    assert family_key("embeddings", "llava")["version"] == 3
    assert family_key("captions", "llava")["version"] == family_key("embeddings", "paligemma")["version"] == 1


def test_data_of_an_entry_count_and_functions_do_not(monkeypatch):
    before = family_key("embeddings", "llava")
    monkeypatch.setitem(FAMILIES, "llava", dataclasses.replace(FAMILIES["llava"], to_raster=lambda *given: given[0]))
    assert family_key("embeddings", "llava") == before
    monkeypatch.setitem(FAMILIES, "llava", dataclasses.replace(FAMILIES["llava"], newline=1))
    assert family_key("embeddings", "llava") != before


def test_a_new_field_of_all_entries_changes_no_key_that_does_not_use_it(monkeypatch):
    before = family_key("embeddings", "llava")
    wider = dataclasses.make_dataclass("Wider", [("views", str, "square")], bases=(Family,), frozen=True)
    told = vars(FAMILIES["llava"])
    monkeypatch.setitem(FAMILIES, "llava", wider(**told))
    assert family_key("embeddings", "llava") == before
    monkeypatch.setitem(FAMILIES, "llava", wider(**told, views="tiles"))
    assert family_key("embeddings", "llava")["entry"]["views"] == "tiles"


def test_the_commit_is_told_where_there_is_one(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    def commit():
        provenance.commit.cache_clear()
        return provenance.commit()

    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    assert commit() is None
    git("init")
    assert commit() is None
    (tmp_path / "a").write_text("a")
    git("add", "a")
    git("commit", "-m", "a")
    clean = commit()
    assert len(clean) == 40
    (tmp_path / "a").write_text("b")
    assert commit() == f"{clean}-dirty"
    provenance.commit.cache_clear()


def test_provenance_tells_code_software_and_what_else_is_given():
    told = provenance.provenance("extract", device="cpu")
    assert told.keys() == {"code", "commit", "torch", "transformers", "device"}
    assert len(told["code"]) == 16
    assert provenance.version_of("no-such-package-at-all") is None
