"""Training: the optimiser and its schedule, early stopping, whitening, faults; a killed run and several processes."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from toy_store import embeddings, write_store

from lossmap.errors import LossmapError
from lossmap.reconstruct import training
from lossmap.reconstruct.batches import Batches, HeldOut
from lossmap.reconstruct.networks import build_network
from lossmap.reconstruct.saving import load_reconstructor, load_tensors
from lossmap.reconstruct.training import Progress, Run, Schedule, train
from lossmap.reconstruct.whitening import fold, measure_whitening, whiten
from lossmap.steps import measure_statistics, train_reconstructor

ROOT = Path(__file__).parents[1]
PLAIN = {"kind": "mlp", "widths": [16], "dropout": 0.0}
NOISY = {"kind": "transformer", "width": 8, "layers": 1, "heads": 2, "dropout": 0.3}
ACCELERATOR = Accelerator(cpu=True)


class Teacher:
    """Pairs in memory: 4 tokens of 6 correlated features, and what a random network makes of them."""

    index, device, pre_shape, post_shape = "toy.json", "cpu", (4, 5), (4, 6)

    def __init__(self, n=400, spoilt=()):
        generator = torch.Generator().manual_seed(1)
        mixing = torch.randn(6, 6, generator=generator) @ torch.diag(torch.tensor([3, 1, 0.3, 0.1, 0.03, 0.01]))
        latent = torch.randn(n, 4, 6, generator=generator)
        weights = torch.randn(6, 5, generator=generator) / 6**0.5
        self.post, self.pre = latent @ mixing.T, torch.tanh(latent @ weights)
        self.pre[list(spoilt)] = math.nan

    def read(self, images):
        return self.post[images], self.pre[images]

    def blocks(self, images, size=64):
        for first in range(0, len(images), size):
            yield self.read(images[first : first + size])


def run_training(
    work, architecture=PLAIN, pairs=None, batches=None, binding=None, minutes=1e9, accelerator=ACCELERATOR, **changes
):
    """A short training on the teacher. Returns the network and its history."""
    pairs = pairs or Teacher()
    batches = batches or Batches(pairs, np.arange(320), 16, seed=5)
    held_out = HeldOut(pairs, np.arange(320, 400), 16)
    torch.manual_seed(0)
    network = build_network(architecture, pairs.pre_shape, pairs.post_shape, [[0], [1], [2], [3]])
    schedule = Schedule(**({"steps": 60, "round": 20, "patience": 9, "learning_rate": 0.01} | changes))
    return network, train(network, batches, held_out, schedule, 7, accelerator, work, binding or {}, minutes)


def weights_of(network):
    return torch.cat([values.flatten() for values in network.state_dict().values()])


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine():
    schedule = Schedule(steps=110, round=1, learning_rate=2.0, warm_up=10 / 110)
    assert [schedule.rate(step) for step in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert [schedule.rate(step) for step in (10, 35, 60, 85)] == pytest.approx([2.0, 1 + 0.5**0.5, 1.0, 1 - 0.5**0.5])
    assert 0 < schedule.rate(109) < 1e-3
    assert [Schedule(steps=2, round=1, warm_up=0.99, learning_rate=1.0).rate(step) for step in (0, 1)] == [0.5, 1]


def test_an_update_is_a_step_of_torchs_adamw():
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(5, 4), torch.nn.Linear(5, 4)
    theirs.load_state_dict(ours.state_dict())
    run, reference = Run(ours), torch.optim.AdamW(theirs.parameters(), weight_decay=0.1)
    for step in range(20):
        inputs, rate = torch.randn(8, 5), 0.01 * (1 + step % 3)
        for network in (ours, theirs):
            network(inputs).square().mean().backward()
        run.update(rate, 0.1)
        reference.param_groups[0]["lr"] = rate
        reference.step()
        reference.zero_grad()
    assert (run.progress.step, ours.weight.grad) == (20, None)
    torch.testing.assert_close(weights_of(ours), weights_of(theirs), rtol=1e-6, atol=1e-7)


def test_a_network_learns_what_can_be_learned(tmp_path):
    _, history = run_training(tmp_path, {**PLAIN, "widths": [64]}, steps=600, round=100, learning_rate=0.02)
    assert history[-1]["held_out_loss"] < 0.01 * Teacher().pre.square().mean()
    assert [row["step"] for row in history] == [100, 200, 300, 400, 500, 600]
    assert history[0]["epoch"] == 5
    assert history[0]["images"] == 1600
    assert history[-1]["train_loss"] == pytest.approx(history[-1]["held_out_loss"], rel=0.5)
    assert not (tmp_path / "run.safetensors").exists()  # nothing is written before its time


def test_the_history_is_that_of_the_weights_that_are_kept(tmp_path):
    network, history = run_training(tmp_path)
    post, pre = Teacher().read(slice(320, 400))
    with torch.inference_mode():
        error = float((network.eval()(post) - pre).square().mean())
    assert error == pytest.approx(min(row["held_out_loss"] for row in history), rel=1e-4)


def test_small_directions_are_learned_sooner_in_whitened_coordinates(tmp_path):
    errors = [run_training(tmp_path, whiten=how, steps=300)[1][-1]["held_out_loss"] for how in (True, False)]
    assert errors[0] < 0.5 * errors[1]


def test_whitening_is_the_inverse_root_and_leaves_nothing_behind():
    batches = Batches(Teacher(), np.arange(320), 16, seed=5)
    matrix = measure_whitening(batches, ACCELERATOR)
    tokens = torch.cat([post for post, _ in batches.epoch(0)]).flatten(0, 1) @ matrix
    squares = torch.linalg.eigvalsh(tokens.T @ tokens / len(tokens))
    assert squares[-1] == pytest.approx(1, abs=0.01)
    assert squares[2:].min() > 0.5  # two directions lie below the floor
    network = build_network(PLAIN, (4, 5), (4, 6), [[0], [1], [2], [3]])
    names, before = list(network.state_dict()), network.first.weight.clone()
    whiten(network, matrix)
    expected = network(Teacher().post)
    fold(network)
    assert sorted(network.state_dict()) == sorted(names)
    torch.testing.assert_close(network(Teacher().post), expected)
    torch.testing.assert_close(network.first.weight, before @ matrix)


def test_pieces_of_a_batch_add_up(tmp_path):
    networks = [run_training(tmp_path, accumulate=pieces)[0] for pieces in (1, 3, 100)]
    for other in networks[1:]:
        torch.testing.assert_close(weights_of(networks[0]), weights_of(other), rtol=1e-4, atol=1e-5)


def test_training_stops_when_it_no_longer_helps_and_keeps_the_best(tmp_path):
    pairs = Teacher()
    pairs.pre[:320] = torch.randn(320, 4, 5, generator=torch.Generator().manual_seed(2))  # nothing to learn
    network, history = run_training(tmp_path, pairs=pairs, steps=10_000, round=10, patience=4)
    losses = [row["held_out_loss"] for row in history]
    assert len(losses) == losses.index(min(losses)) + 1 + 4
    with torch.inference_mode():
        error = float((network.eval()(pairs.post[320:]) - pairs.pre[320:]).square().mean())
    assert error == pytest.approx(min(losses), rel=1e-4)


def test_gradients_are_clipped(tmp_path, monkeypatch):
    norms = []

    def spy(run, rate, decay, update=Run.update):
        norms.append(math.sqrt(sum(float(weight.grad.square().sum()) for weight in run.weights.values())))
        update(run, rate, decay)

    monkeypatch.setattr(Run, "update", spy)
    run_training(tmp_path, clip=0.05)
    assert len(norms) == 60
    assert max(norms) <= 0.0501


@pytest.fixture
def bfloat16():
    """An accelerator of mixed precision; accelerate's state, of which a process has one, is put back afterwards."""
    AcceleratorState._reset_state()
    yield Accelerator(cpu=True, mixed_precision="bf16")
    AcceleratorState._reset_state()
    Accelerator(cpu=True)


def test_mixed_precision_keeps_weights_in_float32(tmp_path, bfloat16):
    _, full = run_training(tmp_path / "full")
    network, half = run_training(tmp_path / "half", accelerator=bfloat16)
    assert {values.dtype for values in network.state_dict().values()} == {torch.float32}
    assert half != full
    assert half[-1]["held_out_loss"] == pytest.approx(full[-1]["held_out_loss"], rel=0.1)


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_rate(tmp_path):
    pairs = Teacher(spoilt=[11])
    batches = Batches(pairs, np.arange(320), 16, seed=5)
    step = 1 + int((batches.order(0) == 11).any(axis=1).argmax())
    message = (
        rf"Step {step}, learning rate 0\.\d+: the training loss is nan, .* before this step are in .*run.safetensors"
    )
    with pytest.raises(LossmapError, match=message):
        run_training(tmp_path, pairs=pairs, batches=batches)
    tensors, description = load_tensors(tmp_path / "run.safetensors")
    assert description["progress"]["step"] == step - 1
    assert all(torch.isfinite(values).all() for values in tensors.values())


def test_a_gradient_that_is_not_finite_stops(tmp_path):
    pairs = Teacher()
    pairs.pre *= 1e30
    with pytest.raises(LossmapError, match=r"Step 1, learning rate .*: the training loss is inf"):
        run_training(tmp_path, pairs=pairs)


def test_a_held_out_error_that_is_not_finite_stops(tmp_path):
    with pytest.raises(LossmapError, match=r"Step 20, learning rate .*: the held-out error is nan"):
        run_training(tmp_path, pairs=Teacher(spoilt=[399]))


class Killed(Batches):
    """Batches that come to a sudden end before step 33."""

    def steps(self, start, stop):
        yield from super().steps(start, min(stop, 33))
        if start < 33 < stop:
            raise KeyboardInterrupt


def interrupt(work, **changes):
    batches = Killed(Teacher(), np.arange(320), 16, seed=5)
    with pytest.raises(KeyboardInterrupt):
        run_training(work, NOISY, batches=batches, minutes=0, **changes)


def test_an_interrupted_run_goes_on_from_its_last_step(tmp_path, monkeypatch):
    expected, expected_history = run_training(tmp_path / "whole", NOISY)
    interrupt(tmp_path / "cut")
    begun = []
    rate = Schedule.rate
    monkeypatch.setattr(Schedule, "rate", lambda self, step: begun.append(step) or rate(self, step))
    network, history = run_training(tmp_path / "cut", NOISY)
    assert begun[0] == 33
    assert history == expected_history
    assert torch.equal(weights_of(network), weights_of(expected))


def test_a_finished_run_is_not_trained_again(tmp_path):
    expected, _ = run_training(tmp_path, minutes=0)
    network, _ = run_training(tmp_path, batches=Killed(Teacher(), np.arange(320), 16, seed=5))
    assert torch.equal(weights_of(network), weights_of(expected))


def test_a_run_of_other_settings_begins_anew(tmp_path, capsys):
    expected, _ = run_training(tmp_path / "whole", NOISY, binding={"spec": 2})
    interrupt(tmp_path, binding={"spec": 1})
    network, _ = run_training(tmp_path, NOISY, binding={"spec": 2})
    assert torch.equal(weights_of(network), weights_of(expected))
    assert "of a run with other settings, data or code. Training begins anew." in capsys.readouterr().err


def test_a_damaged_work_folder_is_not_used(tmp_path, capsys):
    (tmp_path / "run.safetensors").write_bytes(b"half a file")
    run_training(tmp_path)
    assert "can't be read as weights of Lossmap" in capsys.readouterr().err


def test_progress_survives_json():
    progress = Progress(step=3, losses=[0.1, 1 / 3], history=[{"step": 3, "held_out_loss": 2 / 3}])
    assert Progress(**json.loads(json.dumps(progress.__dict__))) == progress


SETTINGS = {"epochs": 4, "batch": 16, "learning_rate": 0.01, "warm_up": 0.1, "weight_decay": 0.01, "clip": 1.0}
SETTINGS |= {"patience": 9, "accumulate": 1, "buffer": 64, "memory": 10**9}
SETTINGS |= {"threads": 1, "processes": 1, "checkpoint_minutes": 10}


def spec_of(network, share=100, **changes):
    return {"network": network, "share": share, "held_out": 0.2, "seed": 3, "training": {**SETTINGS, **changes}}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A folder with a store and the statistics of its own connector."""
    folder = tmp_path_factory.mktemp("toy")
    write_store(folder / "toy.json", *embeddings(300), parts=[77])
    spec = {"connectors": {"own": {"kind": "own"}}, "seed": 3}
    measure_statistics.run(embeddings=folder / "toy.json", reconstructors=folder, spec=spec)
    return folder


def arguments(toy, out):
    return {
        "embeddings": toy / "toy.json",
        "statistics": toy / "own/statistics.safetensors",
        "reconstructor": out / "r.safetensors",
        "history": out / "r.history.csv",
    }


def command(toy, out, spec):
    files = [word for name, path in arguments(toy, out).items() for word in (f"--{name}", str(path))]
    return ["-m", "lossmap", "train_reconstructor", *files, "--spec", json.dumps(spec)]


def environment(threads=1):
    return {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": str(threads)}


def test_the_step_writes_a_reconstructor_and_its_history(toy, tmp_path):
    train_reconstructor.run(**arguments(toy, tmp_path), spec=spec_of(PLAIN, share=50))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.history.csv", "r.safetensors"]
    rows = list(csv.DictReader((tmp_path / "r.history.csv").open()))
    assert list(rows[0]) == ["step", "epoch", "learning_rate", "train_loss", "held_out_loss", "images"]
    # 240 images fill 15 batches, half of them 7: the same steps, more passes.
    assert [(int(row["step"]), float(row["epoch"])) for row in rows] == [(15 * i, 15 * i / 7) for i in (1, 2, 3, 4)]
    module, architecture = load_reconstructor(tmp_path / "r.safetensors")
    assert architecture["blocks"] == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert architecture["held_out_error"] == min(float(row["held_out_loss"]) for row in rows)
    assert module(torch.zeros(2, 4, 8)).shape == (2, 16, 6)


def test_memory_does_not_change_the_weights(toy, tmp_path):
    contents = set()
    for name, memory in (("held", 10**9), ("streamed", 0)):
        (tmp_path / name).mkdir()
        train_reconstructor.run(**arguments(toy, tmp_path / name), spec=spec_of(PLAIN, memory=memory))
        contents.add((tmp_path / name / "r.safetensors").read_bytes())
    assert len(contents) == 1


def test_a_killed_run_ends_in_the_same_bytes(toy, tmp_path):
    spec = spec_of(NOISY, epochs=8, checkpoint_minutes=1e-9)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    train_reconstructor.run(**arguments(toy, whole), spec=spec)
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
    assert 20 <= load_tensors(state)[1]["progress"]["step"] < 120
    assert not (cut / "r.safetensors").exists()
    train_reconstructor.run(**arguments(toy, cut), spec=spec)
    for name in ("r.safetensors", "r.history.csv"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()
    assert sorted(path.name for path in cut.iterdir()) == ["r.history.csv", "r.safetensors"]


def test_two_processes_do_what_one_does(toy, tmp_path):
    spec = spec_of({**NOISY, "dropout": 0.0}, accumulate=2)
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    train_reconstructor.run(**arguments(toy, one), spec=spec)
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
    networks = [load_reconstructor(folder / "r.safetensors")[0] for folder in (one, two)]
    for network in networks:
        # Attention doesn't depend on the keys' bias: its gradient is rounding alone, which Adam makes full steps of.
        network.encoder[0].self_attn.in_proj_bias.data[8:16] = 0
    torch.testing.assert_close(*map(weights_of, networks), rtol=0, atol=1e-5)
    rows = [list(csv.DictReader((folder / "r.history.csv").open())) for folder in (one, two)]
    for a, b in zip(*rows, strict=True):
        assert {name: float(value) for name, value in a.items()} == pytest.approx(
            {name: float(value) for name, value in b.items()}, abs=1e-5
        )


def test_faults_of_the_input_are_named(toy, tmp_path):
    with pytest.raises(LossmapError, match="toy.json: 60 training images are fewer than one batch of 61"):
        train_reconstructor.run(**arguments(toy, tmp_path), spec=spec_of(PLAIN, share=25, batch=61))
    other = write_store(tmp_path / "toy.json", *embeddings(300, seed=1))
    with pytest.raises(LossmapError, match="toy.json: the statistics .* were measured on another store"):
        train_reconstructor.run(**arguments(toy, tmp_path) | {"embeddings": other}, spec=spec_of(PLAIN))
    assert not (tmp_path / "r.safetensors").exists()
    with pytest.raises(LossmapError, match="processes is 2, but 1 were started"):
        train_reconstructor.run(**arguments(toy, tmp_path), spec=spec_of(PLAIN, processes=2))


def test_a_job_imports_no_compiler():
    """torch.optim's classes, and others, import torch._dynamo when first used: a second of every job."""
    code = (
        "import sys, torch, numpy as np, test_training as t, pathlib, tempfile;"
        "t.run_training(pathlib.Path(tempfile.mkdtemp()), t.NOISY);"
        "print([m for m in ('torch._dynamo', 'transformers') if m in sys.modules])"
    )
    assert training.__name__ in sys.modules
    environ = environment() | {"PYTHONPATH": os.pathsep.join([str(ROOT / "workflow"), str(ROOT / "tests")])}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
