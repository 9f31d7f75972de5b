"""This machine, or a checkpoint, -> what of it Lossmap sees, and what is wrong with it."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

import torch
from packaging.requirements import Requirement

from lossmap.errors import LossmapError
from lossmap.study.provenance import commit, version_of

MISSING = "missing"
LEAST_DISK = 2e9  # bytes; the default study takes 0.4 GB


def run(*, checkpoint: Path | None = None) -> None:
    """Print versions, devices, memory and disk, for a report of a fault, and list what is wrong. Prints no token.

    checkpoint: a model's folder, of which it is found by experiment, with random weights, where its connector is, what
    enters and leaves it, and in which order; of a family that Lossmap doesn't know, an entry for the registry is
    printed. Ends with status 1 if something is wrong.
    """
    if checkpoint is not None:
        from lossmap.vlm.connector_probe import probe_connector  # transformers take seconds to import
        from lossmap.vlm.connector_report import report

        print("\n".join(report(probe_connector(checkpoint))))
        return
    print(f"lossmap {version_of('lossmap')} ({commit() or 'no commit'}) in {Path(__file__).parents[2]}")
    print(f"Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} cores, {memory()}")
    print("\n".join(f"torch sees {device}" for device in devices()))
    required = requirements()
    print(", ".join(f"{one.name} {version_of(one.name) or MISSING}" for one in required))
    free = shutil.disk_usage(".").free
    print(f"disk: {free / 1e9:.1f} GB free in this folder")
    set_ = ", ".join(f"{name} {'set' if os.environ.get(name) else 'not set'}" for name in ("HF_HOME", "HF_TOKEN"))
    offline = os.environ.get("HF_HUB_OFFLINE", "0")
    print(f"hub: {set_}, HF_HUB_OFFLINE={offline}")
    faults = [*wrong_versions(required), *faults_of_folder(free)]
    if faults:
        raise LossmapError.listing("Wrong with this machine:", faults, "Mend these first.")
    print("Nothing is wrong that can be seen from here.")


def memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB of memory"


def devices() -> list[str]:
    """GPUs with their memory; "no GPU" where there is none."""
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [f"{one.name}, {one.total_memory / 1e9:.1f} GB (CUDA {torch.version.cuda})" for one in found] or ["no GPU"]


def requirements() -> list[Requirement]:
    """What this version of Lossmap needs, without extras."""
    try:
        lines = importlib.metadata.requires("lossmap") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    every = (Requirement(line) for line in lines)
    return sorted((one for one in every if one.marker is None or one.marker.evaluate()), key=lambda one: one.name)


def wrong_versions(required: list[Requirement]) -> list[str]:
    """A line for each package that is missing or of another version than this Lossmap was written for."""
    return [
        f"{one.name} is {version_of(one.name) or MISSING}, wanted {one.specifier}: pip install '{one}'"
        for one in required
        if (found := version_of(one.name)) is None or not one.specifier.contains(found, prereleases=True)
    ]


def faults_of_folder(free: int) -> list[str]:
    """What keeps a study from being run in this folder."""
    faults = []
    if free < LEAST_DISK:
        faults.append(f"{Path.cwd()}: {free / 1e9:.1f} GB are free, the default study wants {LEAST_DISK / 1e9:.0f} GB")
    if not os.access(".", os.W_OK):
        faults.append(f"{Path.cwd()}: may not be written; start in a folder of your own")
    return faults
