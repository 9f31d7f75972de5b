"""What docs/extending.md builds, piece by piece, works: a measure in five places, and the exhibit that shows it."""

import re
import shutil
from pathlib import Path

import pandas as pd
from small_study import MODELS, K, snakemake

ROOT = Path(__file__).parents[1]


def pieces():
    """Path -> code, as the page gives them."""
    page = (ROOT / "docs/extending.md").read_text()
    return re.findall(r'```python title="([^"]+)"\n(.*?)```', page, re.S)


def test_a_measure_takes_five_places():
    assert len(pieces()) == 5


def test_an_exhibit_that_is_added_is_measured_shown_and_drawn(study, tmp_path):
    folder = tmp_path / "extended"
    shutil.copytree(study, folder, symlinks=True)
    for path, code in pieces():
        where = folder / path
        known = where.read_text() if where.exists() else ""
        if path.endswith("specs.py"):  # among the others: before the function that looks them up
            before, mark, after = known.partition("def spec_of(")
            where.write_text(f"{before}{code}\n\n{mark}{after}")
        else:
            where.write_text(f"{known}\n\n{code}" if known else code)
    done = snakemake(folder, "hubness")
    assert done.returncode == 0, done.stdout + done.stderr
    ran = set(re.findall(r"^\d+ of \d+ +(\w+)", done.stdout + done.stderr, re.M))
    assert ran == {"measure_hubness", "hubness"}  # and nothing of what was there
    table = pd.read_csv(folder / "results/small/tables/hubness.csv")
    assert len(table) == 2 * len(K) * len(MODELS)
    assert table["hubness"].notna().all()
    page = (folder / "results/small/tables/hubness.html").read_text()
    assert "Do a few images become everybody&#39;s neighbours?" in page
    assert "skewness" in page
    assert "before" in (folder / "results/small/tables/hubness.rst").read_text()
    assert (folder / "results/small/figures/hubness.png").stat().st_size > 5000
    planned = snakemake(folder, "-n").stdout
    assert "make_summary" in planned
    assert "extract" not in planned
