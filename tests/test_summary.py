"""The summary opens on what the study has found, and leads to everything else."""

import re

from small_study import MODELS

from lossmap.study.captions import caption, findings_of, html_of
from lossmap.study.exhibits import figure3


def test_the_summary_says_what_was_found_and_shows_it(study):
    page = (study / "results/small/summary.html").read_text()
    questions = re.findall(r'<h2 id="q\d">(.*?)</h2>', page)
    assert questions[:2] == ["What is lost?", "Do neighbours survive?"]
    assert len(questions) == 5
    for model in MODELS:
        assert f"<strong>{model}</strong>: at most " in page  # the verdict
        assert f"<strong>{model}</strong> keeps this share" in page  # the overlap
    assert page.count('src="data:image/png;base64,') >= 4
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)  # nothing from a network


def test_every_link_of_the_summary_leads_to_a_file(study):
    page = (study / "results/small/summary.html").read_text()
    links = set(re.findall(r'href="([^"#]+)"', page))
    assert len(links) > 50
    assert not [link for link in links if not (study / "results/small" / link).is_file()]
    tables = {path.name for path in (study / "results/small/tables").glob("*.csv")}
    assert tables == {link.removeprefix("tables/") for link in links if link.endswith(".csv")}


def test_the_report_opens_on_the_same_sentences(study):
    text = (study / "results/small/summary.rst").read_text()
    assert text.startswith("**Does the connector lose, or is the decoder too weak?**\n\n- **")
    assert "**Do an image's neighbours survive the connector?**" in text


def test_findings_are_a_caption_without_what_is_shown_and_without_details():
    text = "**What is shown.** More.\n\n- **a**: one.\n\n  In detail.\n- **b**: two.\n\nIn brackets: interval.\n"
    assert findings_of(text) == "- **a**: one.\n\n- **b**: two."
    text = "Shown.\n\n- **a**: 1 [0, 2].\n\nIn brackets: interval.\n"
    assert findings_of(text) == "- **a**: 1 [0, 2].\n\nIn brackets: interval."


def test_a_name_that_ends_in_an_underscore_is_no_reference():
    """In reStructuredText it would be, and leave an error in the report."""

    class Exhibit:
        ABOUT = "**Shown**: of {s.confidence:.0%}."
        findings = staticmethod(lambda table, settings: ["- **model_** on data_ (``a_``): x_1 is 2."])

    settings = figure3.Settings(checkpoints={}, permutations=20, confidence=0.9)
    page = html_of(caption(Exhibit, None, settings))
    assert "of 90%." in page
    assert "<strong>model_</strong> on data_ (" in page
    assert "x_1 is 2" in page
    assert "system-message" not in page
