"""One figure is drawn anew from the tables that are there, whatever else has changed, as docs/running.md says."""

import os
import re
from contextlib import contextmanager

from small_study import ROOT, planned, small_study, snakemake

from lossmap.study.exhibit import exhibits_of
from lossmap.study.settings import check_study


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


def test_the_documentations_command_redraws_one_figure_and_touches_nothing_else(study):
    [command] = re.findall(r"^snakemake (.* --allowed-rules figure3) ", (ROOT / "docs/running.md").read_text(), re.M)
    words = command.replace("results/mini/", "results/small/").replace("--cores 1 ", "").split()
    before = dates(study)
    with changed_since(study):
        assert "extract" in planned(study)  # without the command, everything would be made anew
        done = snakemake(study, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^\d+ of \d+ +(\w+)", done.stdout + done.stderr, re.M) == ["figure3"]
    after = dates(study)
    assert {path: content for path, (content, _) in after.items()} == {
        path: content for path, (content, _) in before.items()
    }
    drawn = {path.name for path in after if after[path] != before[path]}
    assert drawn == {f"figure3.{ending}" for ending in ("csv", "html", "rst", "pdf", "png")}  # table and caption, too
    assert planned(study) <= {"make_summary", "make_report", "all"}  # which hold the figure


def test_each_figure_has_a_rule_that_redraws_it(study):
    """It has the figure's name; of those of which there is one for each dataset, also the dataset's."""
    figures = {path.stem for path in (study / "results/small/figures").glob("*.pdf")}
    shown = exhibits_of(check_study(small_study(), paths=False))
    rules = {name: exhibit.name for exhibit in shown for name in exhibit.figures}
    assert set(rules) == figures
    files = [f"results/small/figures/{name}.pdf" for name in rules]
    with changed_since(study):
        assert planned(study, *files, "--force", "--allowed-rules", *sorted(set(rules.values()))) == set(rules.values())
