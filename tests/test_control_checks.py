"""Controls that don't fit a model's embeddings are found by its configuration, before any work."""

import copy
import json

import pytest
from small_study import ROOT

from lossmap.errors import LossmapError
from lossmap.study.control_checks import control_problems
from lossmap.study.reading import read_study
from lossmap.study.settings import check_study


@pytest.fixture
def study(monkeypatch):
    """The default study, unchecked, for a test to change."""
    monkeypatch.chdir(ROOT)
    return copy.deepcopy(read_study("config.yaml"))


def with_controls(study, **controls):
    study["reconstruction"]["controls"] = controls
    return study


def checkpoint(folder, name, **changes):
    """A copy of a shipped model's JSON files, with changes to its vision configuration."""
    for path in (ROOT / "workflow/zoo" / name).glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_a_rank_of_more_than_the_features_of_a_patch_is_refused_with_its_model(study):
    with_controls(study, few={"kind": "pca", "rank": 96}, many={"kind": "pca", "rank": 97})
    with pytest.raises(LossmapError) as raised:
        check_study(study)
    lines = [line for line in str(raised.value).splitlines() if line.startswith("  - ")]
    assert lines == [
        f"  - reconstruction: controls: many: with {model}: Control pca: rank is 97; wanted 1 to 96, the features of a"
        " patch."
        for model in sorted(study["models"])
    ]


@pytest.mark.parametrize(
    ("side", "kind", "message"),
    [
        (40, "pooling", "Connector pooling: a grid of 5 x 5 patches can't be cut into 2 x 2 blocks. Leave"),
        (40, "identity", "Control identity: 5 x 5 patches can't be cut into 16 equal blocks, one for each token of"),
        (40, "pca", "Control pca: 5 x 5 patches can't be cut into 16 equal blocks, one for each token of the model's"),
        (40, "other_image", None),
        (64, "pooling", None),
        (64, "rotation", None),
    ],
)
def test_a_grid_that_cannot_be_cut_is_refused_as_measuring_would(study, tmp_path, side, kind, message):
    config = check_study(with_controls(study, c={"kind": kind}))
    config["models"] = {"m": {"checkpoint": checkpoint(tmp_path, "idefics2"), "image_size": side}}
    found = control_problems(config)
    assert len(found) == (message is not None)
    assert all(line.startswith(f"reconstruction: controls: c: with m: {message}") for line in found)


def test_the_papers_checkpoints_are_known_without_a_network(monkeypatch):
    monkeypatch.chdir(ROOT)
    paper = read_study("workflow/studies/paper.yaml")
    config = check_study(paper, paths=False)
    config["reconstruction"]["controls"] = {"many": {"kind": "pca", "rank": 2000}, "pool": {"kind": "pooling"}}
    features = {"llava": 1024, "idefics2": 1152, "qwen2.5-vl": 1280}
    found = control_problems(config)
    assert len(found) == len(config["models"]) == 3
    assert all(any(f"wanted 1 to {width}," in line for line in found) for width in features.values())


def test_what_a_configuration_leaves_open_is_left_to_measuring(study, tmp_path):
    config = with_controls(check_study(study), c={"kind": "pca", "rank": 97})
    folder = checkpoint(tmp_path, "llava")
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["vision_config"]["hidden_size"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    config["models"] = {"m": {"checkpoint": folder}, "hub": {"checkpoint": "a/b", "revision": "0" * 40}}
    assert control_problems(config) == []
    del config["reconstruction"]
    assert control_problems(config) == []
