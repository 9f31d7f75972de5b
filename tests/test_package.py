"""The package as others install it: a wheel, in an environment of its own, in a folder without the repository."""

import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from PIL import Image
from small_study import ROOT

from lossmap.errors import STUDY_FILE

PYTHONS = ("3.11", "3.12", "3.13")  # that pyproject.toml allows
OTHERS = [version for version in PYTHONS if version != "{}.{}".format(*sys.version_info)]
# What `lossmap init`, the checks of a study and the reading of datasets need. The rest needs torch, whose builds for
# other Pythons than this one bring CUDA libraries of several GB.
WITHOUT_TORCH = {
    *("snakemake", "numpy", "pandas", "pyarrow", "pillow", "simplejpeg", "tqdm", "pydantic", "pyyaml"),
    "huggingface-hub",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT], folder)
    (found,) = folder.glob("lossmap-*.whl")
    return found


def run(command: list, folder: Path, **environment) -> str:
    """What a command printed. No path of this repository is in its environment, but for the Python that runs it."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", STUDY_FILE)}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, capture_output=True, text=True, env=kept | environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_pythons_tested_are_those_that_are_allowed():
    allowed = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    assert [f"3.{minor}" for minor in range(30) if allowed.contains(f"3.{minor}.1")] == list(PYTHONS)


def requirements_of(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist")
    return [one for one in map(Requirement, lines) if one.marker is None]  # no extra's


def photos(folder: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    for i in range(number):
        path = folder / ("cats", "dogs")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 30 + i, 3), dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The `lossmap` command of an environment with the wheel, and beside it, what else is installed here. Its files are
    read-only, as where an administrator installed them, and the working folder is another one."""
    top = tmp_path_factory.mktemp("blank ü")
    run([sys.executable, "-m", "venv", "--without-pip", top / "env"], top)
    (packages,) = (top / "env").glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # its own .pth files are not followed
    python = top / "env/bin/python"
    run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel], top)
    for path in [packages / "lossmap", *(packages / "lossmap").rglob("*")]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    work = top / "wörk ing"
    photos(work / "my photos", 8)
    yield lambda *arguments: run([top / "env/bin/lossmap", *arguments], work), work, packages
    for path in [packages / "lossmap", *(packages / "lossmap").rglob("*")]:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


@pytest.fixture(scope="module")
def finished(installed):
    """The working folder of a study that the installed command wrote, planned and ran; what it printed."""
    lossmap, work, _ = installed
    lossmap("init", "mine.yaml", "--model", "workflow/zoo/qwen2_5_vl", "--images", "my photos")
    plan = lossmap("plan", "--configfile", "mine.yaml")
    assert not (work / "results").exists()
    return work, plan, lossmap("run", "figure3", "--cores", "2", "--configfile", "mine.yaml")


def test_a_wheel_holds_the_package_and_the_workflow_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    inside = {name.removeprefix("lossmap/") for name in names if name.startswith("lossmap/")}
    assert all(name.startswith(("lossmap/", "lossmap-")) for name in names)
    tracked = ["Snakefile", "config.yaml", "rules", "envs", "profiles", "docs", "workflow"]
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *tracked], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0 and listed.stdout:  # a clone; else what lies here
        files = listed.stdout.rstrip("\0").split("\0")
    else:
        files = [str(path.relative_to(ROOT)) for top in tracked for path in [ROOT / top, *(ROOT / top).rglob("*")]]
        files = [name for name in files if (ROOT / name).is_file() and "__pycache__" not in name]
    files = [name for name in files if (ROOT / name).is_file()]
    assert inside == {
        name.removeprefix("workflow/lossmap/") if name.startswith("workflow/lossmap/") else f"checkout/{name}"
        for name in files
    }
    assert wheel.stat().st_size < 8e6


def test_the_command_lists_what_people_call_before_the_steps(installed):
    lossmap, _, packages = installed
    text = lossmap("--help")
    assert text == lossmap()
    first, last = text.index("  init "), text.index("answer_questions")
    assert first < text.index("  plan ") < text.index("  run ") < last
    assert str(packages / "lossmap/checkout") in text
    assert "usage: lossmap run [-h]" in lossmap("run", "--help")


def test_a_study_of_own_images_runs(installed, finished):
    lossmap, _, packages = installed
    work, plan, printed = finished
    assert "Study mine (mine.yaml): 1 model, 1 dataset" in plan
    assert (work / "results/mine/figures/figure3.pdf").stat().st_size > 5000
    assert f"{packages}/lossmap/checkout/profiles/default" in printed
    log = Path(re.search(r"^Complete log\(s\): (.*)$", printed, re.M).group(1)).read_text()
    assert log.count("python -m lossmap ") == 6
    assert f"{ROOT}/workflow" not in log + printed
    assert "Nothing to be done" in lossmap("run", "figure3", "--cores", "2", "--configfile", "mine.yaml")
    assert "make_report" in lossmap("run", "-n", "--configfile", "mine.yaml")
    assert "are what was written" in lossmap("verify", "results/mine/embeddings/my-photos/qwen2_5_vl.json")


def test_jobs_find_the_package_and_nothing_that_is_installed_beside_it(installed, finished):
    """What stands on PYTHONPATH comes before an environment's own packages, which conda's are."""
    _, _, packages = installed
    folder = finished[0] / ".snakemake/lossmap"
    assert os.listdir(folder) == ["lossmap"]
    assert (folder / "lossmap").samefile(packages / "lossmap")


def python_of(version: str) -> str | None:
    """A Python of that version, on PATH or pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python{version}")
    for candidate in filter(None, [shutil.which(f"python{version}"), *map(str, pyenv)]):
        asked = [candidate, "-c", "import sys, ssl; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return candidate
    return None


@pytest.mark.parametrize("version", OTHERS)
def test_another_python_compiles_the_package_and_runs_what_needs_no_torch(version, wheel, tmp_path):
    """With packages of that Python, from PyPI: a study is written, checked, planned by Snakemake, and its images are
    read. All else is tested with the Python that runs the tests."""
    python = python_of(version)
    if python is None:
        pytest.skip(f"there is no Python {version} here")
    run([python, "-m", "venv", tmp_path / "env"], tmp_path)
    needed = [str(one) for one in requirements_of(wheel) if one.name.lower() in WITHOUT_TORCH]
    assert len(needed) == len(WITHOUT_TORCH)
    pip = [
        tmp_path / "env/bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--disable-pip-version-check",
    ]
    run([*pip, "--constraint", ROOT / "requirements.lock", *needed], tmp_path)
    run([*pip, "--no-deps", wheel], tmp_path)
    (package,) = (tmp_path / "env").glob("lib/python*/site-packages/lossmap")
    run([tmp_path / "env/bin/python", "-W", "error", "-m", "compileall", "-q", package], tmp_path)
    photos(tmp_path / "photos", 8)
    lossmap = tmp_path / "env/bin/lossmap"
    run([lossmap, "init", "mine.yaml", "--model", "workflow/zoo/llava", "--images", "photos"], tmp_path)
    assert "figure3  " in run([lossmap, "run", "-n", "--configfile", "mine.yaml"], tmp_path)
    run([lossmap, "run", "manifests", "--cores", "1", "--configfile", "mine.yaml"], tmp_path)
    assert (tmp_path / "results/mine/data/photos/images.parquet").is_file()
