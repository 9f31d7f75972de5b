"""Lossmap away from its checkout: another working folder, results on another disk, any name in any path."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from small_study import ROOT, clone

from lossmap.data.formats import read
from lossmap.errors import STUDY_FILE, LossmapError
from lossmap.study.reading import default_study, read_study
from lossmap.study.settings import check_study
from lossmap.vlm.checkpoints import local_checkpoint

OTHER_DISK = Path("/dev/shm")


def run_snakemake(checkout: Path, folder: Path, *arguments) -> subprocess.CompletedProcess:
    """Snakemake on the Snakefile of a checkout, started in another folder."""
    command = [sys.executable, "-m", "snakemake", "-s", checkout / "Snakefile", "--cores", "2", *arguments]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", STUDY_FILE)}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # of what is written into the checkout, Python's own cache is no part
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)


def files_of(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A finished study of eight photographs. Every path holds a blank and letters beyond ASCII; the checkout is
    read-only, the working folder another one, and its results a link to another file system, where there is one."""
    top = tmp_path_factory.mktemp("blank ü")
    checkout = clone(top / "chéck out")
    for path in [checkout, *checkout.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    before = files_of(checkout)
    (top / "a mödel").symlink_to(checkout / "workflow/zoo/llava")
    rng = np.random.default_rng(0)
    for i in range(8):
        path = top / f"phötos here/{'cats & dogs' if i % 2 else 'bïrds (2)'}/{i} ü.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 30 + i, 3), dtype=np.uint8)).save(path)
    study = {
        "study": "own",
        "models": {"mine": {"checkpoint": str(top / "a mödel")}},
        "datasets": {"photos": {"format": "image_folder", "images": "../phötos here"}},
        "overlap": {"datasets": ["photos"], "k": [3], "permutations": 20},
        "statistics": {"resamples": 100},
    }
    (top / "my stüdy.yaml").write_text(yaml.safe_dump(study, allow_unicode=True))
    disk = tmp_path_factory.mktemp("other disk ö")
    if OTHER_DISK.is_dir() and os.access(OTHER_DISK, os.W_OK):
        disk = OTHER_DISK / f"lossmap tests ö {os.getpid()}"
        disk.mkdir()
    (top / "wörk ing").mkdir()
    (top / "wörk ing/results").symlink_to(disk)
    arguments = ["--directory", "wörk ing", "--configfile", "my stüdy.yaml"]
    yield top, lambda *more: run_snakemake(checkout, top, *arguments, *more), before
    subprocess.run(["rm", "-rf", disk], check=True)


@pytest.fixture(scope="module")
def finished(elsewhere):
    """The folder of the working folder, and what the run printed."""
    top, run, before = elsewhere
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    return top / "wörk ing", done.stdout + done.stderr, run, before


def test_a_study_runs_in_another_folder_to_its_report(finished):
    folder, _, run, _ = finished
    assert (folder / "results").is_symlink()
    assert zipfile.is_zipfile(folder / "results/own/report.zip")
    store = json.loads((folder / "results/own/embeddings/photos/mine.json").read_text())
    assert store["images"] == 8
    again = run()
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_checkout_is_only_read(finished):
    folder, _, _, before = finished
    assert files_of(folder.parent / "chéck out") == before
    assert before


def test_the_console_has_one_line_a_job_and_the_log_has_the_commands(finished):
    folder, printed, _, _ = finished
    lines = re.findall(r"^\d+ of \d+  .*", printed, re.M)
    assert [line.split()[0] for line in lines] == [str(i) for i in range(1, 9)]
    assert re.fullmatch(r"2 of 9  extract photos mine 000000 000008  \d+:\d\d", lines[1])
    assert len(printed.splitlines()) <= len(lines) + 4
    assert "python -m lossmap" not in printed
    log = Path(re.search(r"^Complete log\(s\): (.*)$", printed, re.M).group(1))
    assert log.parent == folder / ".snakemake/log"
    assert log.read_text().count("python -m lossmap ") == 7


def test_a_failing_job_shows_its_fault_its_log_and_its_command(finished):
    folder, _, run, _ = finished
    broken = folder.parent / "phötos here/bïrds (2)/bröken one.png"
    broken.write_bytes(b"no image")
    done = run()
    broken.unlink()
    assert done.returncode == 1
    text = done.stdout + done.stderr
    block = text[text.index("Error in rule read_dataset photos:") :]
    assert "    | error: The dataset in ../phötos here (format image_folder) has a problem:" in block
    assert "bröken one.png" in block
    assert f"    | Mend the files, or the dataset's entry in {folder.parent}/my stüdy.yaml." in block
    assert "    log: results/own/logs/read_dataset/photos.log" in block
    assert "    command: python -m lossmap read_dataset " in block
    assert "1 failed, see above:\n    read_dataset photos: results/own/logs/read_dataset/photos.log" in block
    assert "CalledProcessError" not in text


def test_a_dry_run_has_one_line_a_job_and_commands_are_shown_when_asked_for(elsewhere):
    _, run, _ = elsewhere
    quiet, asked = run("-n", "-F"), run("-n", "-F", "-p")
    assert quiet.returncode == asked.returncode == 0
    line = "figure3  results/own/tables/figure3.csv and 4 more  ("
    assert line in quiet.stdout + quiet.stderr
    assert "lossmap" not in (quiet.stdout + quiet.stderr).replace("lossmap tests", "")
    assert "python -m lossmap make_exhibit figure3 " in asked.stdout + asked.stderr


def test_the_default_study_is_found_from_an_empty_folder(tmp_path):
    done = run_snakemake(ROOT, tmp_path, "-n", "figure3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "figure3  results/mini/tables/figure3.csv" in done.stdout + done.stderr


def test_the_working_folders_own_study_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_study().samefile(ROOT / "config.yaml")
    (tmp_path / "config.yaml").write_text("study: mine\n")
    assert read_study(default_study()) == {"study": "mine"}


def test_a_shipped_model_is_found_from_everywhere_unless_there_is_one_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local_checkpoint("workflow/zoo/llava").samefile(ROOT / "workflow/zoo/llava")
    assert local_checkpoint("zoo/llava") == Path("zoo/llava")
    (tmp_path / "workflow/zoo/llava").mkdir(parents=True)
    assert local_checkpoint("workflow/zoo/llava") == Path("workflow/zoo/llava")


def test_messages_name_the_studys_file(tmp_path, monkeypatch):
    monkeypatch.delenv(STUDY_FILE, raising=False)
    with pytest.raises(LossmapError, match="Mend the study's file"):
        check_study({})
    monkeypatch.setenv(STUDY_FILE, "a.yaml or b.yaml or what --config gives")
    with pytest.raises(LossmapError, match=r"Mend a\.yaml or b\.yaml or what --config gives\."):
        check_study({})
    (tmp_path / "images").mkdir()
    entry = {"format": "coco", "images": str(tmp_path / "images"), "annotations": str(tmp_path / "captions_x.json")}
    with pytest.raises(LossmapError, match=r"Correct the dataset's entry in a\.yaml or b\.yaml"):
        read(entry)


def test_a_run_names_every_file_and_value_that_it_was_given(tmp_path):
    (tmp_path / "öne.yaml").write_text("study: one\nmodels: {}\n")
    (tmp_path / "two.yaml").write_text("datasets: {}\n")
    done = run_snakemake(ROOT, tmp_path, "-n", "--configfile", "öne.yaml", "two.yaml", "--config", "colour=red")
    assert done.returncode == 1
    assert "Mend öne.yaml or two.yaml or what --config gives." in done.stdout + done.stderr


def test_braces_in_paths_are_refused(tmp_path):
    config = {
        "study": "own",
        "models": {"mine": {"checkpoint": "models/{1}"}},
        "datasets": {"photos": {"format": "image_folder", "images": "photos}"}},
    }
    with pytest.raises(LossmapError) as caught:
        check_study(config, paths=False)
    assert "models: mine: checkpoint: models/{1} holds { or }, which Snakemake takes for a wildcard" in str(
        caught.value
    )
    assert "datasets: photos: images: photos} holds { or }" in str(caught.value)
