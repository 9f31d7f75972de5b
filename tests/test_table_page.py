"""A table's page in a browser: sorting, filtering, headings that stay, by mouse and by keyboard, without a network."""

import pandas as pd
import pytest
from test_browser import needs_browser
from test_report import CHROMIUM, FLAGS

from lossmap.study.tables import write_page

FRAME = pd.DataFrame(
    {
        "model": [f"model-{i}" for i in range(40)],
        "overlap": [f"{(i * 7 % 40) / 40:.2f} [0.00, 1.00]" for i in range(39)] + [None],
        "k": [10, 100] * 20,
        "p": ["<= 0.005", "0.013"] * 20,
    }
)
NASTY = "<script>window.hacked = 1</script>"


@pytest.fixture
def page(tmp_path):
    """The table's page, opened without a network; afterwards no complaint of the browser."""
    from playwright.sync_api import sync_playwright

    frame = FRAME.copy()
    frame.loc[0, "model"] = NASTY
    write_page(frame, tmp_path / "table.html", "Overlap", "", "", "What the columns mean.")
    complaints = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page(viewport={"width": 500, "height": 400})
        opened.on("console", lambda message: complaints.append(message.text))
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.goto((tmp_path / "table.html").as_uri())
        yield opened
        assert opened.evaluate("window.hacked") is None
        browser.close()
    assert not complaints


def cells(page, column: int) -> list[str]:
    return page.locator(f"tbody tr:visible > :nth-child({column})").all_inner_texts()


@pytest.mark.browser
@needs_browser
def test_a_click_sorts_by_value_and_a_second_one_backwards_with_what_is_missing_last(page):
    page.get_by_role("button", name="overlap").click()
    values = [float(text.split()[0]) for text in cells(page, 2)[:-1]]
    assert values == sorted(values)
    assert cells(page, 2)[-1] == "–"
    assert page.locator("thead th[aria-sort=ascending]").inner_text().startswith("overlap")
    page.get_by_role("button", name="overlap").press("Enter")
    assert cells(page, 2)[0].startswith("0.97")
    assert cells(page, 2)[-1] == "–"
    page.get_by_role("button", name="k", exact=True).click()
    assert cells(page, 3) == ["10"] * 20 + ["100"] * 20
    page.get_by_role("button", name="p", exact=True).click()
    assert cells(page, 4) == ["<= 0.005"] * 20 + ["0.013"] * 20


@pytest.mark.browser
@needs_browser
def test_rows_are_found_by_words(page):
    page.get_by_label("Show rows with").fill("model-1 0.013")
    assert cells(page, 1) == [f"model-{i}" for i in (1, 11, 13, 15, 17, 19)]
    assert page.locator("#count").inner_text() == "6 of 40 rows"
    page.get_by_label("Show rows with").fill("")
    assert page.locator("#count").inner_text() == "40 rows"


@pytest.mark.browser
@needs_browser
def test_headings_and_the_first_column_stay_in_view(page):
    page.locator(".scroll").evaluate("region => region.scrollTo(1000, 1000)")
    assert page.locator(".scroll").evaluate("region => region.scrollTop") > 0
    top = page.locator(".scroll").bounding_box()
    heading = page.locator("thead th").nth(1).bounding_box()
    first = page.locator("tbody th").last.bounding_box()
    assert heading["y"] == pytest.approx(top["y"], abs=2)
    assert first["x"] == pytest.approx(top["x"], abs=2)
    assert page.locator("caption").inner_text() == "Overlap"
    assert page.locator("tbody th[scope=row]").count() == 40
