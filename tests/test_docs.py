"""README and documentation: complete, without links that lead nowhere, with the numbers of shipped tables."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
import yaml

import lossmap
from lossmap.reconstruct.verdict import Interval, percent_within
from lossmap.study.exhibit import kinds

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "workflow/report"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
OUTSIDE = ("http://", "https://", "mailto:", "#")


def words_of(name: str) -> str:
    """A page, with single blanks, so that line breaks don't matter."""
    return " ".join((ROOT / name).read_text().split())


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not target.startswith(OUTSIDE)]
    assert [target for target in targets if not (page.parent / unquote(target.partition("#")[0])).exists()] == []


def test_the_readme_leads_to_every_page():
    linked = set(re.findall(r"\]\(docs/([^)#]+)\)", (ROOT / "README.md").read_text()))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"} <= linked


def test_the_readmes_overlaps_are_those_of_the_shipped_table():
    readme, table = words_of("README.md"), pd.read_csv(REPORT / "figure3-mini.csv")
    shown = table[(table["metric"] == "euclidean") & (table["k"] == 10) & (table["dataset"] == "seedbench")]
    assert len(shown) == 4
    for row in shown.itertuples():
        assert f"{row.overlap:.2f} [{row.overlap_low:.2f}, {row.overlap_high:.2f}]" in readme
    assert f"chance {shown['chance'].iloc[0]:.2f}" in readme


def interval(row: dict, name: str) -> Interval:
    return Interval(*(row[name + end] for end in ("", "_low", "_high")))


def test_the_readmes_verdict_is_that_of_the_shipped_table():
    readme, table = words_of("README.md"), pd.read_csv(REPORT / "verdict-mini.csv")
    lines = [line.split("|")[1:-1] for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|")]
    shown = {cells[0].split(",")[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}
    assert len(table) == 4
    for row in table.to_dict("records"):
        values = [percent_within(interval(row, name)) for name in ("model_connector_fvu", "matched_control_fvu")]
        values.append(percent_within(interval(row, "matched_control_difference")).replace("%", ""))
        assert shown[row["model"]] == [*values, row["settled"]]
    beyond = ("extrapolated_difference_low", "extrapolated_difference_high")
    for model, text in (
        ("idefics2-mini", "{:.1f} and {:.1f} points for"),
        ("qwen2.5-vl-mini", "{:.1f} and {:.1f} for Qwen2.5-VL"),
        ("internvl-mini", "{:.1f} and {:.1f} for InternVL"),
    ):
        [row] = table[table["model"] == model].to_dict("records")
        assert text.format(*(100 * row[name] for name in beyond)) in readme


def test_the_paper_pages_numbers_are_those_of_the_shipped_tables():
    page, table = words_of("docs/paper.md"), pd.read_csv(REPORT / "figure3-mini.csv")
    table = table[table["metric"] == "euclidean"]
    too_high = (table["overlap_paper_convention"] - table["overlap"]).groupby(table["k"])
    for k, digits in {10: 2, 50: 3, 100: 3}.items():
        values = too_high.get_group(k)
        assert re.search(rf"k = {k} (it is )?{values.min():.{digits}f} to {values.max():.{digits}f}", page)
    verdict = pd.read_csv(REPORT / "verdict-mini.csv").set_index("model")
    names = ("model_connector_fvu", "matched_control_fvu")
    one, other = ([f"{verdict.loc[model, name]:.1%}" for name in names] for model in ("llava-mini", "qwen2.5-vl-mini"))
    assert f"leave {one[0]} of the variance after llava-mini's connector and {other[0]} after" in page
    assert f"but {one[1]} and {other[1]} after controls that lose nothing" in page


def test_the_page_on_running_names_every_table_and_figure():
    page = (ROOT / "docs/running.md").read_text()
    assert [kind for kind in kinds() if not re.search(rf"`{kind}(-\w+)?`", page)] == []


def test_the_library_page_has_every_public_name():
    shown = re.findall(r"^::: lossmap\.(\w+)$", (ROOT / "docs/api.md").read_text(), re.M)
    assert sorted(shown) == sorted(lossmap.__all__)


class Loaded(HTMLParser):
    """What a page loads: scripts, styles, pictures, fonts."""

    def __init__(self, text: str):
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        about = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.addresses.append(about.get("src") or "")
        elif tag == "link" and about.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(about.get("href") or "")


def test_the_site_is_built_and_loads_nothing_from_other_hosts(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted(tmp_path.glob("*.html"))
    assert {page.stem for page in pages} == {path.stem for path in (ROOT / "docs").glob("*.md")} | {"tour", "404"}
    for page in pages:
        away = [address for address in Loaded(page.read_text()).addresses if re.match(r"(https?:)?//", address)]
        assert away == [], page.name
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//|@import", style.read_text()), style
    assert "Fraction of variance unexplained" in (tmp_path / "concepts.html").read_text()
    assert "data:image/png;base64" in (tmp_path / "tour.html").read_text()


def test_the_site_shows_every_page():
    def pages(entries):
        for entry in entries:
            for inside in entry.values():
                yield from pages(inside) if isinstance(inside, list) else [inside]

    shown = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(shown) == sorted([*(path.name for path in (ROOT / "docs").glob("*.md")), "tour.md"])
