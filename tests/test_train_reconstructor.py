"""The step that trains a reconstructor: its files, defaults, kills, processes and faults."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_training import NOISY, PLAIN, weights_of
from specs import checked
from toy_store import embeddings, write_store

from lossmap.errors import LossmapError
from lossmap.reconstruct import training
from lossmap.reconstruct.evaluation import load_decoders
from lossmap.reconstruct.networks import parameters
from lossmap.reconstruct.saving import load_reconstructor, load_tensors
from lossmap.reconstruct.sizes import batch_size, round_steps, step_limit
from lossmap.reconstruct.statistics import Statistics
from lossmap.study.products import product_version
from lossmap.study.steps import fit_linear, measure_statistics, train_reconstructor

ROOT = Path(__file__).parents[1]


SETTINGS = {"epochs": 4, "batch": 16, "learning_rate": 0.01, "weight_decay": 0.01, "clip": 1.0}
SETTINGS |= {"patience": 9, "accumulate": 1, "buffer": 64, "memory": 10**9}
SETTINGS |= {"threads": 1, "processes": 1, "checkpoint_minutes": 10}


def spec_of(network, share=100, **changes):
    split = {"held_out": 0.2, "shares": [25, 50, 100], "seed": 3}
    return {"network": network, "share": share, **split, "training": {**SETTINGS, **changes}}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with a store, the statistics of its own connector and its linear decoders."""
    folder = tmp_path_factory.mktemp("toy")
    write_store(folder / "toy.json", *embeddings(300), parts=[77])
    spec = {"connectors": {"own": {"kind": "own"}}, "seed": 3}
    measure_statistics.run(
        embeddings=folder / "toy.json", reconstructors=folder, spec=checked("measure_statistics", spec)
    )
    spec |= {"held_out": 0.2, "shares": [25, 50, 100]}
    fit_linear.run(embeddings=folder / "toy.json", reconstructors=folder, spec=checked("fit_linear", spec))
    return folder


def arguments(toy, out, share=100):
    for path in toy.glob("own/ridge-*"):
        shutil.copy(path, out)
    return {
        "embeddings": toy / "toy.json",
        "statistics": toy / "own/statistics.safetensors",
        "ridge": out / f"ridge-{share}.safetensors",
        "reconstructor": out / "r.safetensors",
        "history": out / "r.history.csv",
    }


def command(toy, out, spec):
    files = [word for name, path in arguments(toy, out).items() for word in (f"--{name}", str(path))]
    return ["-m", "lossmap", "train_reconstructor", *files, "--spec", json.dumps(spec)]


def environment(threads=1):
    return {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": str(threads)}


def test_the_step_writes_a_reconstructor_and_its_history(toy, tmp_path, capsys):
    train_reconstructor.run(
        **arguments(toy, tmp_path, share=50), spec=checked("train_reconstructor", spec_of(PLAIN, share=50))
    )
    assert written(tmp_path) == ["r.history.csv", "r.safetensors"]
    rows = list(csv.DictReader((tmp_path / "r.history.csv").open()))
    columns = ["step", "epoch", "learning_rate", "train_loss", "held_out_loss", "images", "converged"]
    assert list(rows[0]) == columns
    # 240 images fill 15 batches, half of them 7: the same steps, more passes, a look every 25 steps.
    assert [(int(row["step"]), float(row["epoch"])) for row in rows] == [(i, i / 7) for i in (0, 25, 50, 60)]
    module, architecture = load_reconstructor(tmp_path / "r.safetensors")
    assert architecture["blocks"] == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert architecture["held_out_error"] == min(float(row["held_out_loss"]) for row in rows)
    assert architecture["converged"] is False
    assert {row["converged"] for row in rows} == {"False"}
    assert module(torch.zeros(2, 4, 8)).shape == (2, 16, 6)
    _, linear = load_reconstructor(tmp_path / "ridge-50.safetensors")
    assert float(rows[0]["held_out_loss"]) == pytest.approx(linear["held_out_error"], rel=1e-4)
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("Learning rate 0.01, as the study sets it. Held-out error ")
    assert told.endswith("has NOT CONVERGED in 60 of at most 60 steps of 16 images.")


def test_defaults_fit_any_number_of_images(toy, tmp_path, capsys):
    spec = spec_of(PLAIN, share=25, epochs=None, batch=None, learning_rate=None)
    train_reconstructor.run(**arguments(toy, tmp_path, share=25), spec=checked("train_reconstructor", spec))
    _, architecture = load_reconstructor(tmp_path / "r.safetensors")
    assert architecture["converged"]
    assert architecture["learning_rate"] in [rate for rate, _ in architecture["trials"]]
    told = capsys.readouterr().err.splitlines()[-1]
    assert "found by the held-out error after 25 steps (0.1: " in told
    assert "of at most 3,000 steps of 16 images." in told
    assert [batch_size(n) for n in (1, 12, 60, 400, 100_000)] == [1, 12, 16, 40, 128]
    assert [step_limit(batches, None) for batches in (3, 625)] == [3000, 62_500]
    assert step_limit(625, 30) == 18_750
    assert [round_steps(held, batch) for held, batch in ((12, 16), (20_000, 128))] == [25, 157]


def test_networks_share_the_ridge_that_they_begin_from(toy, tmp_path):
    paths = arguments(toy, tmp_path)
    for name in ("one", "two"):
        paths["reconstructor"] = tmp_path / f"{name}-100.safetensors"
        train_reconstructor.run(**paths, spec=checked("train_reconstructor", spec_of(PLAIN, epochs=1)))
    decoders = load_decoders(tmp_path, ["ridge", "one", "two"], [100], Statistics.load(paths["statistics"]))
    assert decoders[0].module is decoders[1].module.ridge is decoders[2].module.ridge
    assert [decoder.converged for decoder in decoders] == [True, False, False]
    assert decoders[1].parameters == parameters(decoders[1].module.network)


def test_another_ridge_than_it_was_trained_from_is_an_error(toy, tmp_path):
    train_reconstructor.run(**arguments(toy, tmp_path), spec=checked("train_reconstructor", spec_of(PLAIN)))
    shutil.copy(tmp_path / "ridge-25.safetensors", tmp_path / "ridge-100.safetensors")
    with pytest.raises(LossmapError, match=r"was trained from .*ridge-100.safetensors, which has another"):
        load_reconstructor(tmp_path / "r.safetensors")
    (tmp_path / "ridge-100.safetensors").unlink()
    with pytest.raises(LossmapError, match="which is missing. Put the file back, or delete"):
        load_reconstructor(tmp_path / "r.safetensors")


def written(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("ridge-"))


def test_memory_does_not_change_the_weights(toy, tmp_path):
    made = []
    for name, memory in (("held", 10**9), ("streamed", 0)):
        (tmp_path / name).mkdir()
        train_reconstructor.run(
            **arguments(toy, tmp_path / name), spec=checked("train_reconstructor", spec_of(PLAIN, memory=memory))
        )
        made.append(load_tensors(tmp_path / name / "r.safetensors"))
    (held, told), (streamed, other) = made
    assert held.keys() == streamed.keys()
    assert all(torch.equal(values, streamed[name]) for name, values in held.items())
    assert told["architecture"] == other["architecture"]


def test_a_network_states_its_key_and_who_made_it(toy, tmp_path):
    spec = spec_of(PLAIN)
    train_reconstructor.run(**arguments(toy, tmp_path), spec=checked("train_reconstructor", spec))
    _, told = load_tensors(tmp_path / "r.safetensors")
    assert told["key"] == {
        "product": "networks",
        "version": product_version("networks"),
        "spec": spec,
        "statistics": told["statistics"],
        "ridge": told["architecture"]["ridge"],
    }
    assert {"code", "commit", "torch", "transformers", "device"} == told["provenance"].keys()


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_bytes(toy, tmp_path):
    spec = spec_of(NOISY, epochs=8, checkpoint_minutes=1e-9)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    train_reconstructor.run(**arguments(toy, whole), spec=checked("train_reconstructor", spec))
    # The threads are the spec's, not the environment's.
    process = subprocess.Popen(
        [sys.executable, *command(toy, cut, spec)], env=environment(2), stderr=subprocess.DEVNULL
    )
    state, step, end = cut / "r.safetensors.partial/run.safetensors", 0, time.monotonic() + 60
    while step < 20 and time.monotonic() < end and process.poll() is None:
        time.sleep(0.02)
        step = load_tensors(state)[1]["progress"]["step"] if state.exists() else 0
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert load_tensors(state)[1]["progress"]["step"] >= 20
    assert not (cut / "r.safetensors").exists()
    train_reconstructor.run(**arguments(toy, cut), spec=checked("train_reconstructor", spec))
    for name in ("r.safetensors", "r.history.csv"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()
    assert written(cut) == ["r.history.csv", "r.safetensors"]


@pytest.mark.slow
def test_two_processes_do_what_one_does(toy, tmp_path):
    spec = spec_of({**NOISY, "dropout": 0.0}, accumulate=2)
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    train_reconstructor.run(**arguments(toy, one), spec=checked("train_reconstructor", spec))
    spec["training"] = spec["training"] | {"processes": 2}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, *command(toy, two, spec)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    networks = [load_reconstructor(folder / "r.safetensors")[0].network for folder in (one, two)]
    for network in networks:
        # Attention doesn't depend on the keys' bias: its gradient is rounding alone, which Adam makes full steps of.
        network.encoder[0].self_attn.in_proj_bias.data[8:16] = 0
    torch.testing.assert_close(*map(weights_of, networks), rtol=0, atol=1e-5)
    rows = [list(csv.DictReader((folder / "r.history.csv").open())) for folder in (one, two)]
    for a, b in zip(*rows, strict=True):
        assert a.pop("converged") == b.pop("converged")
        assert [float(value or 0) for value in a.values()] == pytest.approx(
            [float(v or 0) for v in b.values()], abs=1e-5
        )


def test_faults_of_the_input_are_named(toy, tmp_path):
    with pytest.raises(LossmapError, match="toy.json: 60 training images are fewer than one batch of 61"):
        train_reconstructor.run(
            **arguments(toy, tmp_path, share=25),
            spec=checked("train_reconstructor", spec_of(PLAIN, share=25, batch=61)),
        )
    other = write_store(tmp_path / "toy.json", *embeddings(300, seed=1))
    with pytest.raises(LossmapError, match="toy.json: the statistics .* were measured on another store"):
        train_reconstructor.run(
            **arguments(toy, tmp_path) | {"embeddings": other}, spec=checked("train_reconstructor", spec_of(PLAIN))
        )
    assert not (tmp_path / "r.safetensors").exists()
    with pytest.raises(LossmapError, match="processes is 2, but 1 were started"):
        train_reconstructor.run(
            **arguments(toy, tmp_path), spec=checked("train_reconstructor", spec_of(PLAIN, processes=2))
        )


def test_a_job_imports_no_compiler():
    """torch.optim's classes, and others, import torch._dynamo when first used: a second of every job."""
    code = (
        "import sys, torch, numpy as np, small_training as t, pathlib, tempfile;"
        "t.run_training(pathlib.Path(tempfile.mkdtemp()), t.NOISY);"
        "print([m for m in ('torch._dynamo', 'transformers') if m in sys.modules])"
    )
    assert training.__name__ in sys.modules
    environ = environment() | {"PYTHONPATH": os.pathsep.join([str(ROOT / "workflow"), str(ROOT / "tests")])}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
