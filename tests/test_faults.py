"""Faults of the machine: a full disk, one that is read-only, damaged files, two runs at once, clocks that go back.

`make soak` has what takes longer: a whole study that is killed again and again, or whose disk is full.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from small_disk import may_mount, small_disk
from small_study import MODELS, clone, planned, small_study, snakemake
from toy_store import embeddings, write_store

from lossmap.__main__ import main
from lossmap.data.formats import read
from lossmap.study import sources
from lossmap.study.sources import files_digest

ROOT = Path(__file__).parents[1]
FUTURE, PAST = time.time() + 30 * 86_400, 86_400

# A full disk: each step that writes much


SPLIT = {"connectors": {"own": {"kind": "own"}, "turned": {"kind": "rotation"}}, "seed": 3}
TRAINING = {"epochs": 2, "batch": 16, "learning_rate": 0.01, "weight_decay": 0.01, "clip": 1.0}
TRAINING |= {"patience": 9, "accumulate": 1, "buffer": 64, "memory": 10**9, "threads": 1, "processes": 1}
NETWORK = {"network": {"kind": "mlp", "widths": [512], "dropout": 0.0}, "share": 100}
NETWORK |= {"shares": [100], "held_out": 0.2, "seed": 3}
LOSSES = {"dataset": "d", "model": "m", "decoders": ["mean", "ridge"], "share": 100, "batch_size": 16}
LOSSES |= {"confidence": 0.95, "resamples": 50, "seed": 0}
EXTRACTION = {"checkpoint": str(ROOT / "workflow/zoo/llava"), "revision": None, "image_size": None, "batch_size": 2}
EXTRACTION |= {"dtype": "float16", "compute_dtype": "float32", "store_post": True}
EQUAL = {"equal_images": "drop"}
STEPS = {  # step -> its files, read from {material} and written to {disk}, and its spec
    "draw_miniature": ("", {"folder": "{disk}/drawn", "seed": 1, "images": {"seedbench": 8, "cub": 8}}),
    "extract": ("--images {material}/images.parquet --part {disk}/part.zarr --first 0 --stop 6", EXTRACTION),
    "find_neighbours": (
        "--embeddings {material}/toy.json --lists {disk}/lists",
        {"k": 50, "metrics": ["euclidean", "cosine"], **EQUAL},
    ),
    "measure_statistics": ("--embeddings {material}/toy.json --reconstructors {disk}", SPLIT),
    "fit_linear": (
        "--embeddings {material}/toy.json --reconstructors {disk}",
        {**SPLIT, "shares": [100], "held_out": 0.2},
    ),
    "train_reconstructor": (
        "--embeddings {material}/toy.json --statistics {material}/made/own/statistics.safetensors"
        " --ridge {material}/made/own/ridge-100.safetensors --reconstructor {disk}/r.safetensors"
        " --history {disk}/r.csv",
        {**NETWORK, "training": {**TRAINING, "checkpoint_minutes": 1e-9}},
    ),
    "measure_patch_loss": (
        "--embeddings {material}/toy.json --near-copies {material}/near_copies --reconstructors {material}/made"
        " --losses {disk}/losses.zarr --images {disk}/images --summary {disk}/summary",
        LOSSES,
    ),
}


def words_of(step, material, disk):
    files, spec = STEPS[step]
    place = {"material": material, "disk": disk}
    spec = {key: value.format(**place) if isinstance(value, str) else value for key, value in spec.items()}
    return [step, *files.format(**place).split(), "--spec", json.dumps(spec)]


def prepare(step, material, disk):
    """What earlier steps have put where this one writes."""
    if step == "fit_linear":
        ignored = shutil.ignore_patterns("*-*")
        shutil.copytree(material / "made", disk, dirs_exist_ok=True, ignore=ignored)


def contents(folder):
    """Path -> bytes of every file; of a file, its bytes."""
    if folder.is_file():
        return folder.read_bytes()
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Six photographs and their manifest; a toy store, and what was measured on it."""
    folder = tmp_path_factory.mktemp("material")
    (folder / "photos").mkdir()
    for i in range(6):
        Image.new("RGB", (40 + i, 30), (40 * i, 20, 90)).save(folder / f"photos/{i}.png")
    read({"format": "image_folder", "images": str(folder / "photos")}).images.to_parquet(folder / "images.parquet")
    write_store(folder / "toy.json", *embeddings(300), parts=[77])
    pd.DataFrame({"dataset": [], "image_id": []}, dtype="str").to_parquet(folder / "near_copies")
    (folder / "made").mkdir()
    for step in ("measure_statistics", "fit_linear"):
        assert main(words_of(step, folder, folder / "made")) == 0
    return folder


@pytest.mark.skipif(bool(may_mount()), reason=may_mount())
@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_stops_a_step_with_one_line_and_costs_nothing_but_time(step, material, tmp_path, capsys):
    reference = tmp_path / "reference"
    reference.mkdir()
    prepare(step, material, reference)
    before = sum(-(-path.stat().st_size // 4096) for path in reference.rglob("*") if path.is_file())
    assert main(words_of(step, material, reference)) == 0
    after = sum(-(-path.stat().st_size // 4096) for path in reference.rglob("*") if path.is_file())
    for share in (0, 0.5, 0.9):
        disk = tmp_path / f"disk-{share}"
        with small_disk(disk, 4 * max(1, before, int(before + share * (after - before)))) as change:
            prepare(step, material, disk)
            capsys.readouterr()
            assert main(words_of(step, material, disk)) == 1
            told = capsys.readouterr().err
            assert re.search(r"error: the disk is full.*Free space.* run again", told), told
            assert "Traceback" not in told
            for path in [*disk.glob("*.zarr"), *disk.rglob("*-100.safetensors"), *disk.glob("r.safetensors")]:
                # What stands under its own name is finished.
                assert contents(path) == contents(reference / path.relative_to(disk))
            change(64_000)
            assert main(words_of(step, material, disk)) == 0
            assert contents(disk) == contents(reference)


@pytest.mark.skipif(bool(may_mount()), reason=may_mount())
def test_the_message_survives_where_the_log_is_on_the_full_disk(material, tmp_path):
    with small_disk(tmp_path / "disk", 64):
        words = words_of("find_neighbours", material, tmp_path / "disk")
        (tmp_path / "disk/filler").write_bytes(bytes(15 * 4096))
        (tmp_path / "disk/log").write_bytes(bytes(4096))
        with (tmp_path / "disk/log").open("a") as log:
            done = subprocess.run(
                [sys.executable, "-m", "lossmap", *words],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT / "workflow")},
                check=False,
            )
    assert done.returncode != 0
    assert done.stdout.startswith("error: the disk is full")


# A disk that is read-only, and two runs at once


@pytest.mark.skipif(bool(may_mount()), reason=may_mount())
def test_read_only_results_are_one_error(study, tmp_path):
    results = study / "results"
    subprocess.run(["mount", "--bind", str(results), str(results)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(results)], check=True)
        assert planned(study) == set()  # what is there can be read
        done = snakemake(study, "results/small/figures/figure3.pdf", "--force", "--allowed-rules", "figure3")
    finally:
        subprocess.run(["umount", "--lazy", str(results)], check=True)
    text = done.stdout + done.stderr
    assert done.returncode == 1
    assert "Write-protected output files for rule figure3" in text
    assert "Traceback" not in text


@pytest.mark.skipif(bool(may_mount()), reason=may_mount())
def test_a_step_on_a_read_only_disk_is_one_line(material, tmp_path, capsys):
    with small_disk(tmp_path / "disk", 1000) as change:
        change("ro")
        assert main(words_of("find_neighbours", material, tmp_path / "disk")) == 1
    told = capsys.readouterr().err
    assert re.search(r"^error: the disk is read-only.*lists.* Make it writable and run again\.\n$", told)


def own_photographs(folder):
    """A study of three photographs with captions in a folder of their own."""
    for i in range(3):
        path = folder / f"mine/images/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + i, 30), (40 * i, 20, 90)).save(path)
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(3)],
        "annotations": [{"image_id": i, "caption": "A cat."} for i in range(3)],
    }
    (folder / "mine/captions.json").write_text(json.dumps(content))
    config = {key: small_study()[key] for key in ("study", "models")}
    return config | {
        "datasets": {"mine": {"format": "coco", "images": "mine/images", "annotations": "mine/captions.json"}}
    }


def test_a_second_run_in_the_same_folder_is_refused_and_the_first_goes_on(tmp_path):
    folder = clone(tmp_path / "checkout")
    config = own_photographs(folder)
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "manifests", "--cores", "1", "--configfile", "small.yaml"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    first = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    locks = folder / ".snakemake/locks"
    while first.poll() is None and not (locks.is_dir() and any(locks.iterdir())):
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)  # it holds its lock until it goes on
    try:
        second = snakemake(folder, "manifests", config=config)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 0
    assert second.returncode == 1
    assert "Directory cannot be locked" in second.stdout + second.stderr
    assert planned(folder, "manifests", config=config) == set()


# Damaged parts


def flip(part):
    chunk = next(path for path in sorted(part.rglob("*")) if path.is_file() and "pre_mean/c" in str(path))
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)


def shorten(part):
    chunk = next(path for path in sorted(part.rglob("*")) if path.is_file() and "post_mean/c" in str(path))
    chunk.write_bytes(chunk.read_bytes()[:-7])


def exchange(part, other):
    part.rename(part.with_name("aside"))
    other.rename(part)
    part.with_name("aside").rename(other)


def test_damaged_parts_are_named_and_the_remedy_brings_back_the_same_bytes(study, tmp_path, capsys):
    """Five stores, four damages; what each message says to delete is deleted, and one run makes it anew."""
    stores = [(name, model) for name in ("seedbench", "cub") for model in MODELS] + [("coco-karpathy", MODELS[0])]
    results = study / "results/small/embeddings"
    indexes = [results / dataset / f"{model}.json" for dataset, model in stores]
    kept = {path: path.read_bytes() for path in results.rglob("*") if path.is_file() and "snakemake" not in path.name}
    parts = [index.parent / json.loads(index.read_text())["parts"][0]["path"] for index in indexes]
    assert parts[0].name == parts[2].name
    exchange(parts[0], parts[2])  # of one model, in two datasets
    flip(parts[1])
    shorten(parts[3])
    shutil.rmtree(parts[4])
    for index, part in zip(indexes, parts, strict=True):
        words = ["find_neighbours", "--embeddings", str(index), "--lists", str(tmp_path / "lists")]
        assert main([*words, "--spec", '{"k": 3, "metrics": ["euclidean"], "equal_images": "drop"}']) == 1
        told = capsys.readouterr().err
        assert str(part) in told
        [remedy] = re.findall(r"Delete (\S+(?: and \S+)*) and run again", told)
        for path in map(Path, remedy.split(" and ")):
            assert path in (index, part)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = snakemake(study, *[str(index.relative_to(study)) for index in indexes])
    assert done.returncode == 0, done.stdout + done.stderr
    made = re.findall(r"^\d+ of \d+  (\w+)", done.stdout + done.stderr, re.M)
    assert sorted(made) == ["extract"] * 5 + ["index_embeddings"] * 5
    assert {path: path.read_bytes() for path in kept} == kept
    assert planned(study) == set()


def test_a_study_that_was_refused_is_refused_again(tmp_path):
    """Embeddings that an earlier run left are no reason to go on with a dataset that has changed since."""
    folder = clone(tmp_path / "checkout")
    rng = np.random.default_rng(0)
    for name, count in (("train", 5), ("photos", 4)):
        (folder / name).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / f"{name}/{i}.png")
    datasets = {name: {"format": "image_folder", "images": name} for name in ("train", "photos")}
    config = {"study": "small", "models": {MODELS[0]: small_study()["models"][MODELS[0]]}, "datasets": datasets}
    config["reconstruction"] = {"train": "train", "evaluate": ["photos"]}
    index = f"results/small/embeddings/photos/{MODELS[0]}.json"
    assert snakemake(folder, index, config=config).returncode == 0
    shutil.copy(folder / "train/0.png", folder / "photos/copy.png")
    refused = "photos: 1 of 5 images, the first is copy.png"
    for _ in range(2):
        done = snakemake(folder, index, config=config)
        assert (done.returncode, refused in done.stdout + done.stderr) == (1, True)
    (folder / "photos/copy.png").unlink()
    (folder / "photos/damaged.png").write_bytes(b"no image")
    for _ in range(2):
        done = snakemake(folder, index, config=config)
        assert (done.returncode, "photos/damaged.png" in done.stdout + done.stderr) == (1, True)
    (folder / "photos/damaged.png").unlink()
    assert snakemake(folder, index, config=config).returncode == 0
    assert planned(folder, index, config=config) == set()


# Clocks that go back, and files whose date says nothing


@pytest.fixture
def dated(study):
    """What sets the date of files of the finished study; all dates are put back."""
    kept = {}

    def date(paths, when):
        for path in paths:
            kept.setdefault(path, path.stat())
            os.utime(path, (when, when))

    yield date
    for path, state in kept.items():
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_dates_of_files_rerun_nothing(study, dated):
    """Inputs from the future, results of long ago: what counts is their content."""
    results = study / "results/small"
    dated(list((study / "results/miniature").rglob("*.json")), FUTURE)
    dated([path for path in (study / "workflow/zoo").rglob("*") if path.is_file()], FUTURE)
    files = [path for path in results.rglob("*") if path.is_file() and ".zarr" not in str(path)]
    dated([path for path in files if path.parent.name in ("tables", "figures")], PAST)
    dated(list((results / "reconstructors").rglob("*.safetensors")), FUTURE)
    assert planned(study) == set()


def test_results_from_the_future_stop_what_follows_until_their_dates_are_mended(study, dated):
    """Of folders Snakemake knows the date alone. Where a clock went back between two jobs, it says so; the remedy
    of docs/running.md leaves the same bytes."""
    index = "results/small/embeddings/seedbench/llava-mini.json"
    before = (study / index).read_bytes()
    stamps = list((study / index).parent.glob("llava-mini/*/.snakemake_timestamp"))
    dated([*stamps, *{stamp.parent for stamp in stamps}], FUTURE)
    done = snakemake(study, index)
    assert done.returncode == 1
    assert "This could indicate a clock skew problem" in done.stdout + done.stderr
    [remedy] = re.findall(r"`(find results .*?)`", (ROOT / "docs/running.md").read_text())
    subprocess.run(remedy, shell=True, cwd=study, check=True)
    assert snakemake(study, index).returncode == 0
    assert (study / index).read_bytes() == before
    assert planned(study) == set()


def test_an_older_file_in_an_annotations_place_is_noticed(tmp_path):
    folder = clone(tmp_path / "checkout")
    config = own_photographs(folder)
    annotations = folder / "mine/captions.json"
    assert snakemake(folder, "manifests", config=config).returncode == 0
    os.utime(annotations, (FUTURE, FUTURE))
    assert planned(folder, "manifests", config=config) == set()
    annotations.write_text(annotations.read_text().replace("A cat.", "A dog.", 1))
    os.utime(annotations, (PAST, PAST))  # as when it was unpacked from an archive
    assert planned(folder, "manifests", config=config) == {"read_dataset", "manifests"}


def test_older_weights_in_a_checkpoints_place_are_noticed(study):
    weights = study / "workflow/zoo/llava/model.safetensors"
    content, state = weights.read_bytes(), weights.stat()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(weights, (PAST, PAST))
    try:
        again = planned(study)
    finally:
        weights.write_bytes(content)
        os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert {"extract", "caption_images", "answer_questions", "choose_options", "probe_patches"} <= again
    assert not again & {"draw_miniature", "read_dataset"}


def test_files_count_by_content_and_large_ones_by_size_and_date(tmp_path, monkeypatch):
    path = tmp_path / "a.json"

    def digest(content, when):
        path.write_bytes(content)
        os.utime(path, (when, when))
        sources._state.cache_clear()
        return files_digest([str(path)])

    assert digest(b"one", PAST) == digest(b"one", FUTURE)
    assert digest(b"one", PAST) != digest(b"two", PAST)
    monkeypatch.setattr(sources, "SMALL", 2)
    assert digest(b"one", PAST) != digest(b"one", FUTURE)
    assert digest(b"one", PAST) != digest(b"four", PAST)
    assert digest(b"one", PAST) == digest(b"two", PAST)  # which is why such files should not be replaced unseen
    path.unlink()
    sources._state.cache_clear()
    assert files_digest([str(path)]) != files_digest([])
