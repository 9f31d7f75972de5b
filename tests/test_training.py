"""Training: the optimiser and its schedule, early stopping, whitening, faults; a killed run and several processes."""

import copy
import csv
import json
import math
import os
import shutil
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
from lossmap.reconstruct.evaluation import load_rungs
from lossmap.reconstruct.linear import Ridge, has_enough
from lossmap.reconstruct.networks import BeyondRidge, build_network, parameters
from lossmap.reconstruct.saving import load_reconstructor, load_tensors
from lossmap.reconstruct.sizes import batch_size, round_steps, step_limit
from lossmap.reconstruct.statistics import Statistics
from lossmap.reconstruct.training import Progress, Run, Schedule, train
from lossmap.reconstruct.whitening import fold, measure_whitening, whiten
from lossmap.study.products import product_version
from lossmap.study.steps import fit_linear, measure_statistics, train_reconstructor

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
    """A short training on the teacher. Returns the network and how it went."""
    pairs = pairs or Teacher()
    batches = batches or Batches(pairs, np.arange(320), 16, seed=5)
    held_out = HeldOut(pairs, np.arange(320, 400), 16)
    torch.manual_seed(0)
    network = build_network(architecture, pairs.pre_shape, pairs.post_shape, [[0], [1], [2], [3]])
    schedule = Schedule(**({"steps": 60, "round": 20, "patience": 9, "learning_rate": 0.01} | changes))
    return network, train(network, batches, held_out, schedule, 7, accelerator, work, binding or {}, minutes)


def held_out_error_of(network, pairs=None):
    post, pre = (pairs or Teacher()).read(slice(320, 400))
    with torch.inference_mode():
        return float((network.eval()(post) - pre).square().mean())


def weights_of(network):
    return torch.cat([values.flatten() for values in network.state_dict().values()])


def test_the_rate_rises_in_the_first_round_and_is_cut_with_each_stage():
    schedule = Schedule(steps=1000, round=10)
    rates = [schedule.rate(Progress(learning_rate=2.0, step=step)) for step in (0, 4, 9, 10, 500)]
    assert rates == pytest.approx([0.2, 1.0, 2.0, 2.0, 2.0])
    assert schedule.rate(Progress(learning_rate=2.0, step=500, stage=2)) == pytest.approx(2 * training.CUT**2)


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
    _, done = run_training(tmp_path, {**PLAIN, "widths": [64]}, steps=600, round=100, learning_rate=0.02)
    history = done.history
    assert history[-1]["held_out_loss"] < 0.01 * Teacher().pre.square().mean()
    assert [row["step"] for row in history] == [0, 100, 200, 300, 400, 500, 600]
    assert [history[i]["epoch"] for i in (0, 1)] == [0, 5]
    assert [history[i]["images"] for i in (0, 1)] == [0, 1600]
    assert history[0]["train_loss"] is None
    assert history[-1]["train_loss"] == pytest.approx(history[-1]["held_out_loss"], rel=0.5)
    assert (done.learning_rate, done.trials, done.passes) == (0.02, [], 30)
    assert done.halfway_error == min(row["held_out_loss"] for row in history[:4])
    assert not (tmp_path / "run.safetensors").exists()  # nothing is written before its time


def test_the_history_is_that_of_the_weights_that_are_kept(tmp_path):
    network, done = run_training(tmp_path)
    assert held_out_error_of(network) == pytest.approx(done.held_out_error, rel=1e-4)
    assert done.held_out_error == min(row["held_out_loss"] for row in done.history)


def linear_start(pairs, alone=False):
    """A network that begins as least squares on the pairs' training images, and least squares' held-out error."""
    post, pre = (values.flatten(0, 1) for values in pairs.read(slice(320)))
    ridge = Ridge(pairs.pre_shape, pairs.post_shape, [[0], [1], [2], [3]])
    augmented = torch.cat([post, torch.ones(len(post), 1)], 1)
    solution = torch.linalg.lstsq(augmented, pre).solution
    ridge.load_state_dict({"weight": solution[:-1], "bias": solution[-1]})
    torch.manual_seed(0)
    network = build_network({**PLAIN, "widths": [32]}, pairs.pre_shape, pairs.post_shape, [[0], [1], [2], [3]])
    return BeyondRidge(ridge, network, alone).silence(), held_out_error_of(ridge, pairs)


def train_from(network, pairs, work, **changes):
    batches, held_out = Batches(pairs, np.arange(320), 16, seed=5), HeldOut(pairs, np.arange(320, 400), 16)
    schedule = Schedule(**({"steps": 800, "round": 25} | changes))
    return train(network, batches, held_out, schedule, 7, ACCELERATOR, work, {}, 1e9)


def test_a_network_begins_as_ridge_and_ends_no_worse_whatever_the_rate(tmp_path):
    for rate in (None, 1e-6, 100.0):
        network, linear = linear_start(Teacher())
        weight = network.ridge.weight.clone()
        done = train_from(network, Teacher(), tmp_path, learning_rate=rate, steps=200)
        assert done.history[0]["held_out_loss"] == pytest.approx(linear, rel=1e-5)
        assert done.held_out_error <= done.history[0]["held_out_loss"]
        assert held_out_error_of(network) == pytest.approx(done.held_out_error, rel=1e-4)
        assert torch.equal(network.ridge.weight, weight)


def test_where_there_is_nothing_to_learn_ridge_is_kept(tmp_path):
    pairs = Teacher()
    pairs.pre[:320] = torch.randn(320, 4, 5, generator=torch.Generator().manual_seed(2))
    network, linear = linear_start(pairs)
    done = train_from(network, pairs, tmp_path, steps=2000)
    assert done.held_out_error <= linear * (1 + 1e-6)
    assert done.converged


def test_the_rate_is_found_by_trial_and_the_network_converges(tmp_path):
    network, linear = linear_start(Teacher())
    done = train_from(network, Teacher(), tmp_path, steps=10_000)
    errors = dict(done.trials)
    assert done.learning_rate in errors
    gains = {rate: linear - error for rate, error in errors.items()}
    assert gains[done.learning_rate] >= training.NEARLY * max(gains.values())
    assert all(
        gain < training.NEARLY * max(gains.values()) for rate, gain in gains.items() if rate > done.learning_rate
    )
    assert list(errors) == list(training.RATES[: len(errors)])
    assert done.converged
    assert done.history[-1]["step"] < 10_000
    assert done.held_out_error < 0.2 * linear
    assert done.history[-1]["learning_rate"] < done.learning_rate


def test_a_training_that_is_cut_short_or_slow_has_not_converged(tmp_path):
    for how in ({"steps": 50}, {"steps": 400, "learning_rate": 1e-6}):
        done = train_from(linear_start(Teacher())[0], Teacher(), tmp_path, **how)
        assert not done.converged
        assert done.held_out_error < done.history[0]["held_out_loss"]


def test_a_rate_that_is_too_high_is_cut_until_it_helps(tmp_path):
    network, linear = linear_start(Teacher())
    done = train_from(network, Teacher(), tmp_path, learning_rate=30.0, steps=3000)
    assert min(row["held_out_loss"] for row in done.history[1:4]) > linear
    assert done.held_out_error < 0.5 * linear


def test_a_network_that_learns_alone_ends_as_ridge_where_it_stays_above_it(tmp_path):
    for steps, below in ((25, False), (3000, True)):
        network, linear = linear_start(Teacher(), alone=True)
        start = float(Teacher().pre[320:].square().mean())
        done = train_from(network, Teacher(), tmp_path / str(steps), steps=steps)
        assert done.history[0]["held_out_loss"] == pytest.approx(start, rel=1e-5)
        assert done.linear_error == pytest.approx(linear, rel=1e-5)
        assert (done.held_out_error < 0.9 * linear) == below == done.converged == network.alone
        assert done.halfway_error <= done.linear_error  # above ridge, ridge would have been kept then, too
        assert held_out_error_of(network) == pytest.approx(done.held_out_error, rel=1e-4)


def test_ridge_has_enough_images_where_each_input_has_twenty_rows():
    assert has_enough(320, (4, 6), [[0], [1], [2], [3]])
    assert has_enough(120, (4, 6), None)
    assert not has_enough(119, (4, 6), None)
    assert has_enough(30, (4, 6), [[0], [1], [2], [3]])


def test_a_trial_that_was_given_up_leaves_nothing_behind(tmp_path, monkeypatch):
    start = linear_start(Teacher())[0]  # once: least squares rounds by where its arrays lie in memory
    expected = train_from(copy.deepcopy(start), Teacher(), tmp_path / "a", steps=50)
    monkeypatch.setattr(training, "RATES", (1e38, *training.RATES))
    done = train_from(start, Teacher(), tmp_path / "b", steps=50)
    assert done.trials == [[1e38, None], *expected.trials]
    assert done.history == expected.history


def test_rates_at_which_the_loss_is_not_finite_are_passed_over():
    progress = Progress(trials=[[0.1, None], [0.03, 0.9], [0.01, 0.5], [0.003, 0.52]])
    progress.history.append({"held_out_loss": 1.0})
    assert training._chosen(progress) == 0.01
    assert not training._enough(progress)
    progress.trials.append([0.001, 0.8])
    assert training._enough(progress)


def test_small_directions_are_learned_sooner_in_whitened_coordinates(tmp_path):
    errors = [run_training(tmp_path, whiten=how, steps=300)[1].held_out_error for how in (True, False)]
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


def test_a_stage_ends_when_it_no_longer_helps_and_the_next_goes_on_from_the_best(tmp_path):
    pairs = Teacher()
    pairs.pre[:320] = torch.randn(320, 4, 5, generator=torch.Generator().manual_seed(2))  # nothing to learn
    network, done = run_training(tmp_path, pairs=pairs, steps=10_000, round=10, patience=4)
    losses = [row["held_out_loss"] for row in done.history]
    rates = [row["learning_rate"] for row in done.history[1:]]
    first = rates.count(0.01)
    assert first == int(np.argmin(losses[: first + 1])) + 4
    assert rates[first] == pytest.approx(0.01 * training.CUT)
    assert held_out_error_of(network, pairs) == pytest.approx(min(losses), rel=1e-4)
    assert done.history[-1]["step"] < 10_000


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
    assert half.history != full.history
    assert half.held_out_error == pytest.approx(full.held_out_error, rel=0.1)


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
    with pytest.raises(LossmapError, match=r"Before the first step: the held-out error is inf"):
        run_training(tmp_path, pairs=pairs)


def test_a_held_out_error_that_is_not_finite_stops(tmp_path):
    with pytest.raises(LossmapError, match=r"Before the first step: the held-out error is nan"):
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
    expected, expected_done = run_training(tmp_path / "whole", NOISY)
    interrupt(tmp_path / "cut")
    begun = []
    rate = Schedule.rate
    monkeypatch.setattr(Schedule, "rate", lambda self, it: begun.append(it.step) or rate(self, it))
    network, done = run_training(tmp_path / "cut", NOISY)
    assert begun[0] == 33
    assert done == expected_done
    assert torch.equal(weights_of(network), weights_of(expected))


def test_an_interrupted_search_for_the_rate_goes_on(tmp_path, monkeypatch):
    expected, expected_done = run_training(tmp_path / "whole", NOISY, learning_rate=None)
    tried, trial = [], training._Trainer.trial

    def two(self, rate):
        if len(tried) == 2:
            raise KeyboardInterrupt
        tried.append(rate)
        return trial(self, rate)

    monkeypatch.setattr(training._Trainer, "trial", two)
    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path / "cut", NOISY, learning_rate=None, minutes=0)
    monkeypatch.setattr(training._Trainer, "trial", lambda self, rate: tried.append(rate) or trial(self, rate))
    network, done = run_training(tmp_path / "cut", NOISY, learning_rate=None)
    assert tried == [rate for rate, _ in done.trials]  # none twice
    assert done == expected_done
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
    measure_statistics.run(embeddings=folder / "toy.json", reconstructors=folder, spec=spec)
    spec |= {"held_out": 0.2, "shares": [25, 50, 100]}
    fit_linear.run(embeddings=folder / "toy.json", reconstructors=folder, spec=spec)
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
    train_reconstructor.run(**arguments(toy, tmp_path, share=50), spec=spec_of(PLAIN, share=50))
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
    train_reconstructor.run(**arguments(toy, tmp_path, share=25), spec=spec)
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
        train_reconstructor.run(**paths, spec=spec_of(PLAIN, epochs=1))
    rungs = load_rungs(tmp_path, ["ridge", "one", "two"], [100], Statistics.load(paths["statistics"]))
    assert rungs[0].module is rungs[1].module.ridge is rungs[2].module.ridge
    assert [rung.converged for rung in rungs] == [True, False, False]
    assert rungs[1].parameters == parameters(rungs[1].module.network)


def test_another_ridge_than_it_was_trained_from_is_an_error(toy, tmp_path):
    train_reconstructor.run(**arguments(toy, tmp_path), spec=spec_of(PLAIN))
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
        train_reconstructor.run(**arguments(toy, tmp_path / name), spec=spec_of(PLAIN, memory=memory))
        made.append(load_tensors(tmp_path / name / "r.safetensors"))
    (held, told), (streamed, other) = made
    assert held.keys() == streamed.keys()
    assert all(torch.equal(values, streamed[name]) for name, values in held.items())
    assert told["architecture"] == other["architecture"]


def test_a_network_states_its_key_and_who_made_it(toy, tmp_path):
    spec = spec_of(PLAIN)
    train_reconstructor.run(**arguments(toy, tmp_path), spec=spec)
    _, told = load_tensors(tmp_path / "r.safetensors")
    assert told["key"] == {
        "product": "networks",
        "version": product_version("networks"),
        "spec": spec,
        "statistics": told["statistics"],
        "ridge": told["architecture"]["ridge"],
    }
    assert {"code", "commit", "torch", "transformers", "device"} == told["provenance"].keys()


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
    assert load_tensors(state)[1]["progress"]["step"] >= 20
    assert not (cut / "r.safetensors").exists()
    train_reconstructor.run(**arguments(toy, cut), spec=spec)
    for name in ("r.safetensors", "r.history.csv"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()
    assert written(cut) == ["r.history.csv", "r.safetensors"]


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
        train_reconstructor.run(**arguments(toy, tmp_path, share=25), spec=spec_of(PLAIN, share=25, batch=61))
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
