"""What several test files share, which tests are long, and in which order files run."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest
import torch
from small_study import clone, snakemake

# Files whose tests start whole programs, train, or build wheels: minutes. `make check` leaves them out. They run first,
# as listed, so that what processes that run side by side do last is short; the first two need different studies.
LONG = [
    "workflow",
    "views_study",
    "store_post_study",
    "readers_study",
    "faults",
    "what_reruns",
    "package",
    "zoo",
    "anywhere",
    "reruns",
    "cache",
    "damage",
    "known_losses",
    "notebook",
    "real_size",
    "slurm",
    "soak",
]


def pytest_collection_modifyitems(items):
    """Mark what takes long: files of such tests, and those that read the finished small study. They come first."""
    reads_study = {item.path for item in items if "study" in getattr(item, "fixturenames", ())}

    def name(item):
        return item.path.stem.removeprefix("test_")

    def place(item):
        return LONG.index(name(item)) if name(item) in LONG else len(LONG) + (item.path not in reads_study)

    for item in items:
        if item.path in reads_study or name(item) in LONG:
            item.add_marker("slow")
    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small arrays: threads cost more than they give, and tests may run beside each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """A checkout in which the small study has run. It runs once for all processes of a run of the tests, and each has a
    copy of its own to change. Where LOSSMAP_FINISHED names a folder, runs of the tests share what is made there."""
    parent = tmp_path_factory.getbasetemp()
    shared = parent.parent if "PYTEST_XDIST_WORKER" in os.environ else parent
    made = Path(os.environ.get("LOSSMAP_FINISHED", shared / "finished")) / "checkout"
    made.parent.mkdir(parents=True, exist_ok=True)
    with (made.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the first makes it, others wait for it
        if not made.exists():
            shutil.rmtree(made.with_name("making"), ignore_errors=True)  # of a run of it that failed
            folder = clone(made.with_name("making"))
            done = snakemake(folder)
            assert done.returncode == 0, done.stdout + done.stderr
            folder.rename(made)
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("first") / "checkout", symlinks=True))
