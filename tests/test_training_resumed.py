"""A training that was killed goes on and ends as one that was not."""

import json

import numpy as np
import pytest
import torch
from small_training import NOISY, Teacher, run_training, weights_of

from lossmap.reconstruct import training
from lossmap.reconstruct.batches import Batches
from lossmap.reconstruct.training import Progress, Schedule


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
