"""Every table and figure is one file, which says what it is, what it needs and what its columns mean."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from small_study import small_study

from lossmap.__main__ import main
from lossmap.study.columns import COLUMNS, SUFFIXES, Column, _plain, column, define
from lossmap.study.exhibit import TOPICS, exhibits_of, kinds, load
from lossmap.study.settings import check_study
from lossmap.study.specs import Spec, spec_of

ROOT = Path(__file__).parents[1]
PAPER = [*(f"Figure {i}" for i in (1, 2, 3, 5, 6, 7, 12)), "Figures 4, 8 to 11", *(f"Table {i}" for i in range(1, 10))]


@pytest.fixture(scope="module")
def shown():
    return list(exhibits_of(check_study(small_study(), paths=False)))


@pytest.mark.parametrize("kind", kinds())
def test_an_exhibit_says_what_it_is(kind):
    module = load(kind)
    assert module.__doc__.strip().endswith(".")
    assert module.TITLE
    assert len(module.TITLE) < 90
    assert module.TOPIC in TOPICS
    assert re.match(r"\*\*.+\*\*", module.ABOUT.strip())
    assert issubclass(module.Settings, Spec)
    assert all(column(name) for name in module.COLUMNS)
    assert hasattr(module, "NOTE") == (hasattr(module, "PAGE") or hasattr(module, "page"))
    assert callable(module.needs)
    assert callable(module.table)
    assert callable(module.findings)


def test_the_papers_tables_and_figures_have_their_exhibits():
    named = " ".join(load(kind).PAPER or "" for kind in kinds())
    assert not [name for name in PAPER if name not in named]


def test_exhibits_are_found_without_what_is_heavy():
    code = (
        "import sys; from lossmap.study.exhibit import kinds, load; [load(kind) for kind in kinds()]; "
        "print([m for m in ('torch', 'scipy', 'matplotlib', 'seaborn', 'zarr', 'xarray', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "workflow", capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_small_study_has_every_exhibit(shown):
    of_readers = {"where_lost", "readers"}  # see test_readers_study.py
    assert {exhibit.kind for exhibit in shown} == set(kinds()) - of_readers


def test_a_study_has_the_exhibits_that_it_asks_for():
    config = {
        "study": "s",
        "models": {"m": {"checkpoint": "here"}},
        "datasets": {"d": {"format": "image_folder", "images": "here"}},
    }
    assert [*exhibits_of(check_study(config, paths=False))] == []
    config["overlap"] = {"datasets": ["d"]}
    assert [exhibit.name for exhibit in exhibits_of(check_study(config, paths=False))] == ["figure3"]


def test_every_column_of_every_table_is_explained(study, shown):
    for exhibit in shown:
        module = exhibit.module
        table = pd.read_csv(study / "results/small/tables" / f"{exhibit.name}.csv")
        assert len(table), exhibit.name
        for name in table.columns:
            bases = {_plain(name), *(_plain(name).removesuffix(end) for end in SUFFIXES)}
            while not bases & set(module.COLUMNS) and any(base.endswith(end) for base in bases for end in SUFFIXES):
                bases = {base.removesuffix(end) for base in bases for end in SUFFIXES}
            assert bases & set(module.COLUMNS), f"{exhibit.name}: {name} is not in its COLUMNS"
            assert column(name), f"{exhibit.name}: {name} is not in the registry"


def test_every_heading_of_every_page_is_explained(study, shown):
    for exhibit in shown:
        if exhibit.has_page:
            page = (study / "results/small/tables" / f"{exhibit.name}.html").read_text()
            headings = re.findall(r'<th scope="col"([^>]*)><button type="button">(.*?)</button>', page)
            assert headings
            assert not [title for about, title in headings if "title=" not in about], exhibit.name


def test_a_column_has_one_meaning(monkeypatch):
    about = Column("title", "", "", "help")
    define("something_new", about)
    define("something_new", about)
    with pytest.raises(ValueError, match="column something_new: means something else already: help"):
        define("something_new", about._replace(help="other"))
    del COLUMNS["something_new"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"kk": 3}, "kk\n  Extra inputs are not permitted"),
        ({"k": "many"}, "k\n  Input should be a valid array"),
        ({"k": None}, "k\n  Input should be a valid array"),
    ],
)
def test_a_step_refuses_settings_that_it_does_not_know(capsys, change, fault):
    """Before it reads or loads anything."""
    study = check_study(small_study(), paths=False)
    settings = spec_of("measure_overlap").of(study, dataset="d", model="m").model_dump() | change
    with pytest.raises(SystemExit):
        main(["measure_overlap", "--lists", "a", "--overlap", "b", "--summary", "c", "--spec", json.dumps(settings)])
    assert fault in capsys.readouterr().err
