"""What several test files share."""

from pathlib import Path

import pytest
import torch
from small_study import clone, snakemake


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
