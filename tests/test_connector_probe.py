"""`lossmap doctor --checkpoint`: connectors found by experiment on tiny models, known to the registry or not."""

import json
from dataclasses import replace

import pytest
from tiny_models import save_tiny

from lossmap.errors import LossmapError
from lossmap.study.steps import doctor
from lossmap.vlm import families, patch_orders
from lossmap.vlm.connector_probe import probe_connector
from lossmap.vlm.connector_report import report
from lossmap.vlm.families import FAMILIES, read_family


@pytest.mark.parametrize(
    ("model_type", "rows", "tokens", "order", "merge"),
    [
        ("llava", 64, 64, "raster", 1),
        ("gemma3", 64, 4, "raster", 4),
        ("idefics3", 64, 16, "raster", 2),
        ("idefics2", 64, 4, "raster", None),  # queries
        ("internvl", 16, 16, "raster", 1),  # squares side by side
        ("qwen3_vl", 64, 16, "merge blocks", 2),
        ("qwen2_5_vl", 64, 16, "another order", 2),  # windows
        ("mistral3", 64, 16, "raster", 2),
    ],
)
def test_the_connector_of_a_known_family_is_found(tmp_path, model_type, rows, tokens, order, merge):
    save_tiny(model_type, tmp_path)
    found = probe_connector(tmp_path)
    assert found.module == FAMILIES[model_type].connector
    assert (found.rows, found.tokens, found.order, found.merge) == (rows, tokens, order, merge)
    assert report(found)[-1] == "As the registry says."


def test_a_registry_that_taps_earlier_is_told(tmp_path):
    save_tiny("glm4v", tmp_path)
    found = probe_connector(tmp_path)
    assert found.module == "visual.merger"
    assert "goes back to visual.downsample" in report(found)[-1]


def test_of_several_views_order_and_places_are_not_tried(tmp_path):
    save_tiny("llava_next", tmp_path)
    found = probe_connector(tmp_path)
    assert (found.module, found.order, found.merge) == ("multi_modal_projector", None, None)
    assert "of several views" in "\n".join(report(found))
    assert report(found)[-1] == "As the registry says, as far as it was tried."


@pytest.mark.parametrize("model_type", FAMILIES)
def test_no_registry_entry_is_contradicted(tmp_path, model_type):
    save_tiny(model_type, tmp_path)
    assert "The registry says otherwise:" not in report(probe_connector(tmp_path))


@pytest.mark.parametrize(
    ("model_type", "wrong", "told"),
    [
        ("llava", {"merge": lambda config: 2}, "merge is 2, not 1"),
        ("llava", {"inputs": ("pixel_values", "image_sizes")}, "get_image_features was given no image_sizes"),
        ("qwen2_5_vl", {"to_raster": patch_orders.merge_blocks}, "to_raster takes rows in another order"),
        ("qwen3_vl", {"to_raster": patch_orders.raster}, "to_raster takes rows in another order"),
        ("internvl", {"merge": lambda config: 1}, "merge is 1, not 2"),
        ("idefics2", {"latents": lambda config: 5}, "latents are 5, not 4"),
    ],
)
def test_a_registry_entry_that_is_wrong_is_told(tmp_path, monkeypatch, model_type, wrong, told):
    save_tiny(model_type, tmp_path)
    monkeypatch.setitem(FAMILIES, model_type, replace(FAMILIES[model_type], **wrong))
    lines = report(probe_connector(tmp_path))
    assert lines[-2:] == ["The registry says otherwise:", f"  {told}"]


@pytest.fixture
def forget():
    """Takes a family out of the registry. All are put back, in their order, which messages show."""
    known = dict(FAMILIES)
    yield FAMILIES.pop
    FAMILIES.clear()
    FAMILIES.update(known)


def test_of_an_unknown_family_in_several_views_no_entry_is_made_up(tmp_path, forget):
    save_tiny("llava_next", tmp_path)
    forget("llava_next")
    lines = "\n".join(report(probe_connector(tmp_path)))
    assert "no entry can be told: begin with llava_next's" in lines
    assert "Family(" not in lines


def test_weights_are_not_needed(tmp_path):
    save_tiny("llava", tmp_path)
    with_weights = probe_connector(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert probe_connector(tmp_path) == with_weights


@pytest.mark.parametrize("model_type", ["llava", "qwen2_vl", "idefics2"])
def test_the_entry_that_is_printed_for_an_unknown_family_works(tmp_path, forget, capsys, model_type):
    """As if the registry didn't know it: the entry, read as Python, has what the real one says."""
    save_tiny(model_type, tmp_path)
    known = FAMILIES[model_type]
    forget(model_type)
    with pytest.raises(LossmapError, match="lossmap doctor --checkpoint"):
        read_family(tmp_path)
    doctor.run(checkpoint=tmp_path)
    printed = capsys.readouterr().out
    assert "doesn't know this family" in printed
    text = "{" + printed[printed.index(f'"{model_type}": Family(') : printed.index("  The view")] + "}"
    entry = eval(text, dict(vars(families)))[model_type]  # what a user would paste
    config = None
    assert entry.connector == known.connector
    assert set(entry.inputs) == set(known.inputs)
    assert (entry.merge is None) == (known.merge is None)
    if entry.merge is not None:
        assert entry.merge(config) == probe_connector(tmp_path).merge
    assert entry.to_raster is known.to_raster
    assert f'The view, "{entry.view}", is a guess' in printed
    assert set(known.vision_keys) <= set(entry.vision_keys)


def test_a_folder_without_configuration_and_one_that_cannot_be_built_are_named(tmp_path):
    with pytest.raises(LossmapError, match=r"has no config.json. Give the folder of a checkpoint"):
        probe_connector(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    with pytest.raises(LossmapError, match="transformers can't build its model"):
        probe_connector(tmp_path)


def test_a_language_model_alone_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(LossmapError, match="transformers can't build|no get_image_features"):
        probe_connector(tmp_path)
