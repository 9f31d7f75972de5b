"""One figure is drawn anew from the tables that are there, whatever else has changed, as the README says."""

import os
import re
from contextlib import contextmanager

from small_study import ROOT, planned, snakemake


@contextmanager
def changed_since(study):
    """The version of embeddings was raised and all parts of stores were deleted; all is put back in the end."""
    code = study / "workflow/lossmap/study/products.py"
    content, state = code.read_bytes(), code.stat()
    code.write_bytes(content.replace(b'"embeddings": {1: "first"}', b'"embeddings": {1: "first", 2: "second"}'))
    assert code.read_bytes() != content
    aside = {parts: study / f"aside-{i}" for i, parts in enumerate((study / "results/small/embeddings").glob("*/*/"))}
    for parts, place in aside.items():
        parts.rename(place)
    try:
        yield
    finally:
        for parts, place in aside.items():
            place.rename(parts)
        code.write_bytes(content)
        os.utime(code, ns=(state.st_atime_ns, state.st_mtime_ns))


def dates(study):
    """Path -> content and date of every result but logs."""
    files = [path for path in (study / "results").rglob("*") if path.is_file() and path.suffix != ".log"]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_the_readmes_command_redraws_one_figure_and_touches_nothing_else(study):
    [command] = re.findall(r"^snakemake (.* --allowed-rules draw_figure3) ", (ROOT / "README.md").read_text(), re.M)
    words = command.replace("results/mini/", "results/small/").replace("--cores 1 ", "").split()
    before = dates(study)
    with changed_since(study):
        assert "extract" in planned(study)  # without the command, everything would be made anew
        done = snakemake(study, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^\d+ of \d+ +(\w+)", done.stdout + done.stderr, re.M) == ["draw_figure3"]
    after = dates(study)
    assert {path: content for path, (content, _) in after.items()} == {
        path: content for path, (content, _) in before.items()
    }
    drawn = {path.name for path in after if after[path] != before[path]}
    assert drawn == {"figure3.pdf", "figure3.png"}
    assert planned(study) <= {"make_report", "all"}  # which holds the figure


def test_each_figure_has_a_rule_that_redraws_it(study):
    """The rules that the README names; a figure's own is draw_ and its name."""
    figures = {path.stem for path in (study / "results/small/figures").glob("*.pdf")}
    others = {"figure1": "draw_examples", "figure7": "draw_examples", "figure12": "draw_captions"}
    # Galleries and loss maps are one of each dataset and model.
    rules = {name: others.get(name, f"draw_{name.split('-')[0]}") for name in figures}
    files = [f"results/small/figures/{name}.pdf" for name in rules]
    with changed_since(study):
        assert planned(study, *files, "--force", "--allowed-rules", *sorted(set(rules.values()))) == set(rules.values())
    readme = (ROOT / "README.md").read_text()
    assert all(rule in readme for rule in ("draw_examples", "draw_captions", "draw_galleries"))
