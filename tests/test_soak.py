"""What `make soak` relies on: it sees every difference, and reads Snakemake's log right."""

import random
import shutil
import zipfile
from pathlib import Path

import pytest
from soak.compare import differences
from soak.watched import Watched, locked

LOG = """
[Sun Nov 22 07:37:30 2026]
localrule extract:
    input: a
    output: results/a.zarr
    jobid: 7
Shell command: python -m lossmap extract
localcheckpoint read_dataset:
    output: results/b.parquet, results/c.parquet
    jobid: 12
Finished jobid: 7 (Rule: extract)
localrule extract:
    output: results/d.zarr
    jobid: 7
localrule all:
    input: results/b.parquet
    jobid: 0
Finished jobid: 0 (Rule: all)
1 of 4 steps (25%) done
"""


@pytest.fixture
def results(tmp_path):
    """Two equal folders of results."""
    one = tmp_path / "one"
    for name in ("tables/a.csv", "stores/p.zarr/c/0", "logs/a.log", "stores/p.zarr/.snakemake_timestamp"):
        (one / name).parent.mkdir(parents=True, exist_ok=True)
        (one / name).write_text(name)
    with zipfile.ZipFile(one / "report.zip", "w") as archive:
        archive.writestr("report.html", "12:30")
    shutil.copytree(one, tmp_path / "other")
    return one, tmp_path / "other"


def test_times_and_logs_may_differ(results):
    one, other = results
    (other / "logs/a.log").write_text("later")
    (other / "stores/p.zarr/.snakemake_timestamp").unlink()
    with zipfile.ZipFile(other / "report.zip", "w") as archive:
        archive.writestr("report.html", "12:31")
    assert differences(one, other) == []


def test_every_difference_is_listed(results):
    one, other = results
    (other / "tables/a.csv").write_text("tables/b.csv")
    (other / "stores/p.zarr/c/0").unlink()
    (other / "stores/.q.zarr.partial").mkdir()
    with zipfile.ZipFile(other / "report.zip", "w") as archive:
        archive.writestr("other.html", "12:30")
    assert differences(one, other) == [
        f"stores/.q.zarr.partial/: only in {other}",
        f"stores/p.zarr/c/0: only in {one}",
        "report.zip: other bytes",
        "tables/a.csv: other bytes",
        "stores/.q.zarr.partial/: left behind",
    ]


def test_what_both_left_behind_is_listed(results):
    for folder in results:
        (folder / ".r.safetensors.partial").write_text("half")
    assert differences(*results) == [".r.safetensors.partial: left behind"]


def test_jobs_are_told_by_rule_and_outputs(tmp_path):
    run = Watched.__new__(Watched)
    run.log = tmp_path / "run.log"
    run.log.write_text(LOG)
    started, finished = run.jobs()
    assert finished == {"extract: results/a.zarr"}
    assert started - finished == {"read_dataset: results/b.parquet, results/c.parquet", "extract: results/d.zarr"}


def test_a_lock_is_seen(tmp_path):
    assert not locked(tmp_path)
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    assert not locked(tmp_path)
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    assert locked(tmp_path)


def test_moments_are_spread_over_the_run_and_follow_the_seed(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "soak")
    from soak.run import moments

    ends = [float(second) for second in range(10, 101, 10)]
    found = moments(ends, 5, random.Random(3))
    assert found == moments(ends, 5, random.Random(3)) != moments(ends, 5, random.Random(4))
    for i, (second, finished, delay) in enumerate(found):
        assert 20 * i <= second < 20 * (i + 1)
        assert finished == sum(end <= second for end in ends)
        assert delay == pytest.approx(second - 10 * finished)
