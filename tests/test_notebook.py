"""What the documents show a user of the library: the README's first lines and the notebook, run as they stand."""

import contextlib
import io
import json
import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
NUMBER = re.compile(r"-?\d+(?:\.\d+)?%?")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """In a folder of its own, without a display; figures are closed."""
    monkeypatch.chdir(tmp_path)
    with mpl.rc_context({"backend": "agg", "figure.max_open_warning": 0}):
        yield
        plt.close("all")


def printed(code: str, names: dict) -> str:
    """Run code in a namespace; what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "document", "exec"), names)
    return out.getvalue()


def assert_agrees(found: str, shown: str) -> None:
    """The same words, and numbers within what another processor may round to."""
    assert NUMBER.sub("#", found) == NUMBER.sub("#", shown)
    values = [[float(number.rstrip("%")) for number in NUMBER.findall(text)] for text in (found, shown)]
    np.testing.assert_allclose(*values, rtol=0.05, atol=0.02)


def test_the_readmes_first_lines_run_and_print_what_it_says():
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    assert len(code.strip().splitlines()) <= 12
    names = {}
    found = printed(code, names).splitlines()
    overlap, share = re.search(r"k=10\)\)  # (.*)\n", code).group(1), re.search(r"bring back: (.*)\n", code).group(1)
    assert_agrees(found[0], overlap)
    assert_agrees(found[1], share)
    assert names["embeddings"]["patch_box"].shape == (300, 64, 4)
    assert len(plt.gcf().axes[0].get_images()) == 2  # the image, and its losses over it


def test_the_notebook_runs_and_prints_what_it_shows():
    notebook = json.loads((ROOT / "docs/tour.ipynb").read_text())
    names, pictures = {}, 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        shown = "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")
        assert_agrees(printed("".join(cell["source"]), names), shown)
        pictures += sum("image/png" in output.get("data", {}) for output in cell["outputs"])
        assert len(cell["outputs"]) > 0
    assert pictures == 1
    assert [len(ax.get_images()) for ax in names["axes"]] == [2, 2, 2]
