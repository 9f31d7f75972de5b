"""The steps measure_statistics and fit_linear: their files, and every error."""

import json

import numpy as np
import pytest
import torch
from specs import checked
from toy_store import embeddings, write_store

from lossmap.__main__ import main
from lossmap.errors import LossmapError
from lossmap.reconstruct.pairs import pairs_of
from lossmap.reconstruct.saving import load_reconstructor
from lossmap.reconstruct.statistics import Statistics, store_digest
from lossmap.store import open_store
from lossmap.study.steps import fit_linear, measure_statistics

CONNECTORS = {
    "own": {"kind": "own"},
    "turned": {"kind": "rotation"},
    "pca-1": {"kind": "pca", "rank": 1},
    "mixed": {"kind": "invertible_mlp", "layers": 1},
    "other": {"kind": "other_image"},
}
SPEC = {"connectors": CONNECTORS, "shares": [50, 100], "held_out": 0.2, "seed": 7}
OF_STATISTICS = {"connectors": CONNECTORS, "seed": 7}
PRE, POST = embeddings(120)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder in which both steps have run by their command lines."""
    folder = tmp_path_factory.mktemp("steps")
    index = write_store(folder / "toy.json", PRE, POST, parts=[50])
    files = ["--embeddings", str(index), "--reconstructors", str(folder / "out")]
    assert main(["measure_statistics", *files, "--spec", json.dumps(OF_STATISTICS)]) == 0
    assert main(["fit_linear", *files, "--spec", json.dumps(SPEC), "--threads", "1"]) == 0
    return folder


def test_each_connector_gets_its_files(done):
    decoders = {
        f"{decoder}-{share}.safetensors" for decoder in ("mean", "position_mean", "ridge") for share in (50, 100)
    }
    assert {path.name for path in (done / "out").iterdir()} == set(CONNECTORS)
    for name in CONNECTORS:
        assert {path.name for path in (done / "out" / name).iterdir()} == decoders | {"statistics.safetensors"}


def test_statistics_are_numpys(done):
    dataset = open_store(done / "toy.json")
    own = Statistics.load(done / "out/own/statistics.safetensors")
    for side in ("pre", "post"):
        rows = dataset[side].values.astype(np.float64).reshape(-1, dataset[side].shape[2])
        np.testing.assert_allclose(getattr(own, f"{side}_mean"), rows.mean(0), rtol=1e-6)
        np.testing.assert_allclose(getattr(own, f"{side}_std"), rows.std(0), rtol=1e-6)
    assert own.store_digest == store_digest(done / "toy.json")


@pytest.mark.parametrize("name", CONNECTORS)
def test_pre_and_post_of_every_connector_are_standardised(done, name):
    statistics = Statistics.load(done / f"out/{name}/statistics.safetensors")
    assert (json.loads(statistics.connector), statistics.seed) == (CONNECTORS[name], 7)
    for values in pairs_of(open_store(done / "toy.json"), statistics).read(range(120)):
        rows = values.flatten(0, 1)
        torch.testing.assert_close(rows.mean(0), torch.zeros(rows.shape[1]), rtol=0, atol=1e-4)
        torch.testing.assert_close(rows.std(0, correction=0), torch.ones(rows.shape[1]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CONNECTORS)
def test_a_reconstructor_read_from_its_file_beats_the_mean(done, name):
    statistics = Statistics.load(done / f"out/{name}/statistics.safetensors")
    pairs = pairs_of(open_store(done / "toy.json"), statistics)
    post, pre = pairs.read(range(120))
    errors = {}
    for decoder in ("mean", "position_mean", "ridge"):
        module, architecture = load_reconstructor(done / f"out/{name}/{decoder}-100.safetensors", statistics.digest)
        assert not module.training
        assert architecture["kind"] == decoder
        assert 0 <= architecture["held_out_error"] < 1.5
        errors[decoder] = (module(post) - pre).square().mean().item()
    assert errors["mean"] == pytest.approx(1, rel=1e-4)
    assert max(errors["ridge"], errors["position_mean"]) < errors["mean"]
    assert name == "other" or errors["ridge"] < errors["position_mean"]


def test_the_same_again_gives_the_same_bytes(done, tmp_path):
    files = {"embeddings": done / "toy.json", "reconstructors": tmp_path}
    measure_statistics.run(**files, spec=checked("measure_statistics", OF_STATISTICS))
    fit_linear.run(**files, spec=checked("fit_linear", SPEC))
    for path in tmp_path.rglob("*.safetensors"):
        assert path.read_bytes() == (done / "out" / path.relative_to(tmp_path)).read_bytes(), path


def test_statistics_of_another_store_are_refused(done, tmp_path):
    index = write_store(tmp_path / "toy.json", PRE + 1, POST)
    with pytest.raises(LossmapError, match=r"toy.json: the statistics of connector .*own.* measured on another store"):
        fit_linear.run(embeddings=index, reconstructors=done / "out", spec=checked("fit_linear", SPEC))


@pytest.mark.parametrize("change", [{"seed": 8}, {"connectors": {"own": {"kind": "identity"}}}])
def test_statistics_of_another_connector_are_refused(done, change):
    with pytest.raises(
        LossmapError, match=r"own/statistics.safetensors: the statistics are of connector .* wanted .*Delete"
    ):
        fit_linear.run(
            embeddings=done / "toy.json", reconstructors=done / "out", spec=checked("fit_linear", SPEC | change)
        )


def test_a_training_set_that_is_too_small_is_named(tmp_path):
    index = write_store(tmp_path / "toy.json", PRE[:2], POST[:2])
    own = {"connectors": {"own": {"kind": "own"}}}
    spec = SPEC | own
    measure_statistics.run(
        embeddings=index, reconstructors=tmp_path, spec=checked("measure_statistics", OF_STATISTICS | own)
    )
    with pytest.raises(LossmapError, match="training set has 2 images, which leaves none for the held-out part"):
        fit_linear.run(embeddings=index, reconstructors=tmp_path, spec=checked("fit_linear", spec))


def test_a_control_that_does_not_fit_is_named(tmp_path):
    index = write_store(tmp_path / "toy.json", PRE, np.repeat(POST, 2, axis=1)[:, :7], post_grid=None)
    with pytest.raises(LossmapError, match="rotation: 4 x 4 patches can't be cut into 7 equal blocks"):
        measure_statistics.run(
            embeddings=index, reconstructors=tmp_path, spec=checked("measure_statistics", OF_STATISTICS)
        )


def test_constant_features_are_counted_and_nothing_but_constants_is_an_error(tmp_path, capsys):
    pre, post = PRE.copy(), POST.copy()
    pre[:, :, 2:4] = 1.5
    index = write_store(tmp_path / "toy.json", pre, post)
    measure_statistics.run(embeddings=index, reconstructors=tmp_path, spec=checked("measure_statistics", OF_STATISTICS))
    assert "toy.json: 2 of 6 features of pre are constant; the first is feature 2." in capsys.readouterr().err
    post[:] = 3
    index = write_store(tmp_path / "flat.json", pre, post)
    with pytest.raises(
        LossmapError, match=r"flat.json: all 8 features of post are the same in every token.*Check the checkpoint"
    ):
        measure_statistics.run(
            embeddings=index, reconstructors=tmp_path, spec=checked("measure_statistics", OF_STATISTICS)
        )
