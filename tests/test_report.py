"""The report as a person meets it: opened from disk in a browser, without a network."""

import shutil
import zipfile

import pandas as pd
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]


@pytest.fixture
def page(study, tmp_path):
    """The report's front page, and everything that the browser complained about."""
    from playwright.sync_api import sync_playwright

    with zipfile.ZipFile(study / "results/small/report.zip") as archive:
        archive.extractall(tmp_path)
    report = next(tmp_path.rglob("report.html"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.complaints = []
        page.on("console", lambda message: message.type == "error" and page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("requestfailed", lambda request: page.complaints.append(request.url))
        page.goto(report.as_uri())
        yield page
        browser.close()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_the_report_opens_and_shows_each_result_with_its_numbers(page, study):
    shown = page.inner_text("body")
    assert (
        "Does the connector lose, or is the decoder too weak?" in shown
    )  # findings on the first page, from their start
    assert page.get_by_text("Study small").first.bounding_box()["y"] > 0
    page.get_by_text("3 Do neighbours survive?", exact=True).first.click()
    page.wait_for_selector("text=Do an image's neighbours survive the connector?")
    text = page.inner_text("body")
    assert "What does the overlap ratio count?" in text
    assert not page.complaints


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize(
    ("category", "results"),
    [
        ("1 Examples to browse", ["Browse examples"]),
        ("2 What is lost?", ["Does the connector lose, or is the decoder too weak?", "How did the networks learn?"]),
        (
            "4 Do answers and captions suffer?",
            ["Are images that lost more described worse?", "How often are models right?"],
        ),
        ("5 How are embeddings moved?", ["Does a rotation undo the connector?", "Do images keep their places?"]),
        ("6 What did fine-tuning change?", ["What did fine-tuning change?"]),
    ],
)
def test_every_category_shows_its_results(page, category, results):
    page.get_by_text(category, exact=True).first.click()
    for result in results:
        page.wait_for_selector(f"text={result}")
    assert not page.complaints


def test_captions_hold_the_numbers_of_the_tables(study):
    table = pd.read_csv(study / "results/small/tables/figure3.csv")
    rows = table[(table["metric"] == "euclidean") & (table["k"] == table["k"].min())]
    with zipfile.ZipFile(study / "results/small/report.zip") as archive:
        texts = " ".join(
            archive.read(name).decode(errors="ignore") for name in archive.namelist() if name.endswith((".js", ".html"))
        )
    for row in rows.itertuples():
        assert f"{row.overlap:.2f} [{row.overlap_low:.2f}, {row.overlap_high:.2f}] on {row.dataset}" in texts
    retrieval = pd.read_csv(study / "results/small/tables/table2.csv")
    for row in retrieval.itertuples():
        assert f"{row.recall_at_5:.3f} [{row.recall_at_5_low:.3f}, {row.recall_at_5_high:.3f}]" in texts
