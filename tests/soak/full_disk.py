"""A study on a disk that is too small, enlarged again and again until the study is whole."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from small_disk import small_disk
from watched import Watched

FIRST_MEGABYTES = 4
GROWTH = 1.3


def fill_again_and_again(folder: Path, config: dict, cores: int, say: Callable) -> list[str]:
    """Run a study whose results lie on a small disk; enlarge it whenever it is full. Leaves the results in folder.

    Returns a line for each run that did not fail with one line that says that the disk is full.
    """
    wrong, runs, size = [], 0, float(FIRST_MEGABYTES)
    kept = folder / "kept"
    with small_disk(folder / "results", int(1024 * size)) as change:
        while True:
            runs += 1
            run = Watched(folder, config, folder / f"run-{runs:02d}.log", cores)
            status = run.wait()
            text = run.log.read_text(errors="replace")
            if not status:
                break
            steps = [line for line in text.splitlines() if line.startswith("Error in rule")]
            say(f"disk of {size:.1f} MB: {' '.join(steps) or 'full'}")
            if "Error in rule make_report" in text:  # Snakemake's own code, with a message of its own
                told = "No space left on device" in text
            else:
                told = "error: the disk is full" in text and "Traceback" not in text
            if not told:
                wrong.append(f"{run.log}: failed without one line that says that the disk is full")
            if runs == 40:
                return [*wrong, f"{run.log}: {size:.0f} MB are still not enough"]
            size *= GROWTH
            change(int(1024 * size))
        say(f"disk of {size:.1f} MB: enough, after {runs} runs")
        subprocess.run(["cp", "-a", str(folder / "results"), str(kept)], check=True)
    (folder / "results").rmdir()
    kept.rename(folder / "results")
    return wrong
