"""A disk of any size, to fill: a tmpfs. Needs root."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def may_mount() -> str:
    """Why no disk can be mounted here, and what would help; nothing if it can."""
    if os.geteuid() != 0:
        return "mounting a small disk needs root: run as root, or in a container as its root with --privileged"
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    return "" if probe.returncode == 0 else f"this machine lets nobody mount: {probe.stderr.strip()}; use --privileged"


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable]:
    """Mount a disk of this size at folder, made if it is missing. Yields what changes it: a new size in kilobytes, or
    "ro", "rw". What it holds is gone in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield lambda how: subprocess.run(
            ["mount", "-o", f"remount,{how if isinstance(how, str) else f'size={how}k'}", str(folder)], check=True
        )
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
