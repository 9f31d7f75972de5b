"""Wall time of the default study in a fresh copy: the first run, a second run, and one figure from cached results."""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHECKOUT = ["Snakefile", "rules", "workflow", "envs", "profiles", "config.yaml"]
FIGURE = ["results/mini/figures/figure3.pdf", "--force", "--allowed-rules", "figure3"]


def timed(folder: Path, *arguments: str) -> tuple[float, str]:
    start = time.perf_counter()
    command = [sys.executable, "-m", "snakemake", "--cores", "all", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.perf_counter() - start, done.stdout + done.stderr


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder) / "checkout"
        folder.mkdir()
        for name in CHECKOUT:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        seconds, log = timed(folder)
        jobs = re.findall(r"^\d+ of (\d+)  ", log, re.M)[-1]
        print(f"default study        {seconds:6.0f} s  ({jobs} jobs; wanted: at most 900 s on two cores)")
        seconds, log = timed(folder)
        if "Nothing to be done" not in log:
            sys.exit(log)
        print(f"second run           {seconds:6.1f} s  (nothing to be done; wanted: at most 15 s)")
        seconds, _ = timed(folder, *FIGURE)
        print(f"one figure, redrawn  {seconds:6.1f} s  (wanted: at most 20 s)")


if __name__ == "__main__":
    main()
