"""`make bench`: every speed claim, as a ratio to a peer or a limit measured in the same run; medians of repeats."""

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    for name in (
        *("bench_neighbours", "bench_extraction", "bench_ridge", "bench_training", "bench_generation"),
        *("bench_cider", "bench_geometry", "bench_store", "bench_ragged", "bench_study"),
    ):
        print(f"\n== {name.removeprefix('bench_')} ==", flush=True)
        subprocess.run([sys.executable, Path(__file__).with_name(f"{name}.py"), *sys.argv[1:]], check=True)
