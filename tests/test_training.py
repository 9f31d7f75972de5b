"""Training: the optimiser and its schedule, early stopping, whitening, faults."""

import copy
import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from small_training import (
    PLAIN,
    Teacher,
    held_out_error_of,
    linear_start,
    run_training,
    train_from,
    weights_of,
)

from lossmap.errors import LossmapError
from lossmap.reconstruct import training
from lossmap.reconstruct.batches import Batches
from lossmap.reconstruct.linear import has_enough
from lossmap.reconstruct.networks import build_network
from lossmap.reconstruct.saving import load_tensors
from lossmap.reconstruct.training import Progress, Run, Schedule
from lossmap.reconstruct.whitening import fold, measure_whitening, whiten


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
    matrix = measure_whitening(batches, Accelerator(cpu=True))
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
    # Of more steps, what rounding leaves has grown to the bound on some processors.
    networks = [run_training(tmp_path, accumulate=pieces, steps=40)[0] for pieces in (1, 3, 100)]
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


def test_mixed_precision_keeps_weights_in_float32(tmp_path):
    _, full = run_training(tmp_path / "full")
    AcceleratorState._reset_state()  # a process has one, of one precision
    try:
        mixed = Accelerator(cpu=True, mixed_precision="bf16")
        network, half = run_training(tmp_path / "half", accelerator=mixed)
    finally:
        AcceleratorState._reset_state()
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
