"""python extracting.py CHECKPOINT PHOTOGRAPHS OUT PRECISION: embed photographs one after another, at the default view.

On one core, in a process that does nothing else. The folder OUT gets pre and post of each, and figures.json.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

import lossmap


def peak_gib() -> float:
    """Largest memory of this process so far. What getrusage tells begins with that of the process that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def forget_peak() -> None:
    """Have `peak_gib` begin anew (Linux, proc_pid_clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def main(checkpoint: Path, photographs: Path, out: Path, precision: str) -> None:
    start, worked = time.perf_counter(), time.process_time()
    model = lossmap.open_model(checkpoint, dtype=precision, device="cpu")
    taken = {"seconds": time.perf_counter() - start, "core_seconds": time.process_time() - worked}
    opening = {f"opening_{name}": value for name, value in {**taken, "peak_gib": peak_gib()}.items()}
    opening["parameters"] = sum(values.numel() for values in model.model.parameters())
    figures = {}
    for path in sorted(photographs.iterdir()):
        forget_peak()
        start, worked = time.perf_counter(), time.process_time()
        found = lossmap.embed(model, path, threads=1)
        taken = {"seconds": time.perf_counter() - start, "core_seconds": time.process_time() - worked}
        figures[path.stem] = {**taken, "peak_gib": peak_gib()}
        for name in ("pre", "post"):
            np.save(out / f"{path.stem}-{name}.npy", found[name].values.reshape(-1, found[name].shape[-1]))
    (out / "figures.json").write_text(json.dumps({"opening": opening, "photographs": figures}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(Path, sys.argv[1:4]), sys.argv[4])
