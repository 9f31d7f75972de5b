"""What several test files share."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small arrays: threads cost more than they give, and tests may run beside each other."""
    torch.set_num_threads(1)
