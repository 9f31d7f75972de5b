"""What several test files share, and which tests are long."""

from pathlib import Path

import pytest
import torch
from small_study import clone, snakemake

# Files whose tests start whole programs, train, or build wheels: minutes. `make check` leaves them out.
LONG = [
    "anywhere",
    "cache",
    "damage",
    "faults",
    "notebook",
    "package",
    "readers_study",
    "reruns",
    "slurm",
    "soak",
    "store_post_study",
    "views_study",
    "what_reruns",
    "workflow",
    "zoo",
]


def pytest_collection_modifyitems(items):
    """Mark what takes long: files of such tests, and those that read the finished small study."""
    reads_study = {item.path for item in items if "study" in getattr(item, "fixturenames", ())}
    for item in items:
        if item.path in reads_study or item.path.stem.removeprefix("test_") in LONG:
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small arrays: threads cost more than they give, and tests may run beside each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """A checkout in which the small study has run."""
    folder = clone(tmp_path_factory.mktemp("first") / "checkout")
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
