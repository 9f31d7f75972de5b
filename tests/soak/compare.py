"""Two folders of results: the same bytes, and nothing left behind."""

import hashlib
import zipfile
from pathlib import Path

# What may differ: logs and benchmarks tell times; Snakemake's own marks are empty files.
TOLD_TIMES = {"logs", "benchmarks"}
MARKS = {".snakemake_timestamp"}


def contents(results: Path) -> dict[str, str]:
    """Path -> digest of every result; folders are listed too. Of the report, which holds dates, its members' names."""
    found = {}
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results)
        if TOLD_TIMES & set(name.parts) or path.name in MARKS or path.suffix == ".log":
            continue
        if path.is_dir():
            found[f"{name}/"] = "folder"
        elif path.name == "report.zip":
            found[str(name)] = ", ".join(sorted(zipfile.ZipFile(path).namelist()))
        else:
            with path.open("rb") as file:
                found[str(name)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def differences(one: Path, other: Path) -> list[str]:
    """A line for each result that is in one folder only or is not the same in both, and for each unfinished file."""
    a, b = contents(one), contents(other)
    lines = [f"{name}: only in {one if name in a else other}" for name in sorted(a.keys() ^ b.keys())]
    lines += [f"{name}: other bytes" for name in sorted(a.keys() & b.keys()) if a[name] != b[name]]
    lines += [f"{name}: left behind" for name in sorted(a.keys() | b.keys()) if ".partial" in name or "tmp" in name]
    return lines
