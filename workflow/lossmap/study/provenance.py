"""Which code and which software made a result. For readers: nothing is compared by it and nothing made anew for it."""

import os
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lossmap.study.codehash import code_hash

CHECKOUT = Path(__file__).parents[3]


def provenance(step: str, **more: str) -> dict[str, str | None]:
    """The code of a step (see `code_hash`), the commit of the checkout, versions of PyTorch and transformers, and more
    that is worth telling; None for what isn't there."""
    versions = {package: version_of(package) for package in ("torch", "transformers")}
    return {"code": code_hash(step), "commit": commit(), **versions, **more}


@cache
def commit() -> str | None:
    """The commit of this checkout, with "-dirty" after it where files differ from it; None without git."""
    if not (CHECKOUT / ".git").exists():
        return None
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        unlocked = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # many jobs may ask at once
        return subprocess.run(command, capture_output=True, text=True, check=True, env=unlocked).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def version_of(package: str) -> str | None:
    """Of an installed package; None where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
