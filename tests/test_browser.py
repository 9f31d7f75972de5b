"""The loss browser: what the page holds, and what a person meets in a browser without a network."""

import json
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
from example_tables import BOX, GRID, HEIGHT, WIDTH, answer_mask, chosen_table
from PIL import Image
from specs import checked
from test_report import CHROMIUM, FLAGS

from lossmap.errors import LossmapError
from lossmap.figures.browser import DIGITS, packed_mask
from lossmap.figures.patch_maps import SIGNED, UNSIGNED
from lossmap.study.examples import worst_patches
from lossmap.study.steps import make_browser

SPEC = {"study": "made-up", "most": 200, "megabytes": 15}
NASTY = '</script><script>window.hacked = 1</script><img src="x" onerror="window.hacked = 2"> {{ script }} & "quoted"'
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


def make(folder, paths, **spec):
    make_browser.run(examples=paths, page=folder / "browser.html", spec=checked("make_browser", SPEC | spec))
    return folder / "browser.html"


def content(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.S).group(1))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Answers of two models with masks, choices and captions of one; one text of each kind is an attack."""
    folder = tmp_path_factory.mktemp("tables")
    paths = [
        chosen_table(folder / "a", "answers", {"model": "first", "number": 12}),
        chosen_table(folder / "b", "answers", {"model": "second", "number": 12}, seed=1),
        chosen_table(folder / "c", "choices", {"dataset": "choosing", "number": 6}, masks=False),
        chosen_table(folder / "d", "captions", {"dataset": "captioned", "number": 5}),
    ]
    for path in (paths[0], paths[3]):
        table = pd.read_parquet(path)
        table.loc[0, ["prediction", "model"]] = NASTY, "<i>first</i>"
        table["question"] = table["question"].where(table.index != 1, NASTY)
        table["references"] = [[NASTY, "two"] for _ in range(len(table))]
        table.to_parquet(path, index=False)
    return paths


@pytest.fixture(scope="module")
def examples(tables):
    return pd.concat([pd.read_parquet(path) for path in tables], ignore_index=True)


def test_the_page_is_the_same_file_twice_and_asks_for_nothing_else(tables, tmp_path):
    page = make(tmp_path, tables)
    first = page.read_bytes()
    assert make(tmp_path, tables).read_bytes() == first
    text = first.decode()
    assert not re.search(
        r"https?:|@import|url\(|\b(src|href)=[\"'](?!data:)", re.sub(r'id="data">.*?</script>', "", text)
    )
    assert text.count("</script>") == 2  # no text from outside ends one
    assert "default-src 'none'" in text


def test_every_example_is_on_the_page_with_its_values(tables, tmp_path, examples):
    held = content(make(tmp_path, tables))
    assert len(held["examples"]) == len(examples)
    for shown, row in zip(held["examples"], examples.itertuples(), strict=True):
        assert (shown["model"], shown["prediction"], shown["score"]) == (row.model, row.prediction, row.score)
        assert shown["size"] == [WIDTH, HEIGHT]
        assert shown["box"] == list(BOX)
        for name, means in zip(("squared_error", "norm_difference", "cosine_error"), shown["means"], strict=True):
            size = np.abs(getattr(row, name).astype(float))
            assert means[2] == pytest.approx(size.mean())
            if row.relevant is None:
                assert means[:2] == [None, None]
            else:
                assert means[:2] == pytest.approx([size[row.relevant].mean(), size[~row.relevant].mean()])


@pytest.mark.parametrize("shape", [(40, 60), (700, 300), (1, 5)])
def test_a_mask_survives_its_packing(shape):
    height, width = shape
    rng = np.random.default_rng(0)
    for mask in (np.zeros(shape, bool), np.ones(shape, bool), rng.random(shape) < 0.5, np.eye(*shape, dtype=bool)):
        held = packed_mask(mask, width, height)
        values = np.repeat(np.arange(len(held["runs"])) % 2, held["runs"]).reshape(held["height"], held["width"])
        step = -(-max(shape) // 512)
        np.testing.assert_array_equal(values, mask[step // 2 :: step, step // 2 :: step])
        assert held["scale"] == [width / held["width"], height / held["height"]]
        assert max(values.shape) <= 512


def test_images_shrink_until_the_page_has_its_size(tmp_path, capsys):
    path = chosen_table(tmp_path, "captions", {"number": 12})
    table = pd.read_parquet(path)
    noise = np.random.default_rng(0).integers(0, 255, (300, 450, 3), dtype=np.uint8)
    for image in table["path"]:
        Image.fromarray(noise).save(image)
    table["sha256"] = None  # any file will do
    table.to_parquet(path, index=False)
    page = make(tmp_path, [path], megabytes=0.3)
    assert 150_000 < page.stat().st_size <= 300_000
    make(tmp_path, [path], megabytes=0.04)
    assert "MB, more than browser: megabytes: 0.0, with images of 64 pixels" in capsys.readouterr().err


def test_too_many_examples_are_refused(tables, tmp_path):
    with pytest.raises(LossmapError, match="examples in 4 tables, at most 20 are shown. Ask for fewer"):
        make(tmp_path, tables, most=20)


# In a browser


@pytest.fixture(scope="module")
def opened(tables, tmp_path_factory):
    from playwright.sync_api import sync_playwright

    path = make(tmp_path_factory.mktemp("page"), tables)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.complaints, page.asked = [], []
        page.on("console", lambda message: message.type == "error" and page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.address = path.as_uri()
        yield page
        browser.close()


@pytest.fixture
def page(opened):
    """The page as it opens, and afterwards no complaint of the browser."""
    opened.complaints.clear()
    opened.goto(opened.address)
    yield opened
    assert not opened.complaints
    assert all(url.startswith(("file:", "data:")) for url in opened.asked)
    assert opened.evaluate("window.hacked") is None


def count(page):
    return int(re.search(r"(\d+) shown", page.inner_text("#count")).group(1))


def cards(page):
    return page.locator("#gallery button").all_inner_texts()


def level(row, name="squared_error"):
    """What examples are sorted by: the mean loss of relevant patches, where they are known."""
    size = np.abs(getattr(row, name).astype(float))
    return size.mean() if row.relevant is None else size[row.relevant].mean()


@pytest.mark.browser
@needs_browser
def test_it_opens_with_all_examples_from_the_highest_loss_down(page, examples):
    assert count(page) == len(examples)
    wanted = sorted((level(row) for row in examples.itertuples()), reverse=True)
    shown = [float(re.search(r"loss (\S+)", card).group(1)) for card in cards(page)]
    assert shown == pytest.approx(wanted, abs=1e-4)


def wait_for_all(page, examples):
    from playwright.sync_api import expect

    expect(page.locator("#gallery li")).to_have_count(len(examples))


@pytest.mark.browser
@needs_browser
def test_filters_change_the_count(page, examples):
    def after(**fields):
        page.click("button[type=reset]")
        wait_for_all(page, examples)
        for name, value in fields.items():
            field = page.locator(f"#{name.replace('_', '-')}")
            field.select_option(value) if name in ("model", "dataset", "outcome") else field.fill(value)
        return count(page)

    loss = np.array([level(row) for row in examples.itertuples()])
    assert after(model="second") == (examples["model"] == "second").sum()
    assert after(dataset="choosing") == 6
    assert after(outcome="right") == (examples["outcome"] == "right").sum()
    both = (examples["outcome"] == "wrong") & (examples["model"] == "second")
    assert after(outcome="wrong", model="second") == both.sum() > 0
    assert after(outcome="none") == 5
    assert after(score_from="0.3", score_to="0.6") == examples["score"].between(0.3, 0.6).sum()
    assert after(loss_from="1") == (loss >= 1).sum()
    assert after(loss_to="0.9") == (loss <= 0.9).sum()
    assert after(text="IMAGE-10") == (examples["image_id"] == "image-10").sum() > 1
    assert after(text="no such text") == 0
    assert page.is_visible("#none")
    page.click("#all")
    wait_for_all(page, examples)
    assert page.is_hidden("#none")


@pytest.mark.browser
@needs_browser
def test_sorting_by_score_keeps_kinds_of_scores_together(page, examples):
    page.select_option("#sort", "score-down")
    scores = [re.search(r"(CIDEr|right|wrong) (\S+)", card).groups() for card in cards(page)]
    by_kind = [examples[examples["task"] == task]["score"] for task in ("choices", "captions", "answers")]  # by name
    shown = [score for kind in by_kind for score in sorted(kind, reverse=True)]
    assert [float(score) for _, score in scores] == pytest.approx(shown, abs=0.05)
    page.select_option("#sort", "loss-up")
    losses = [float(re.search(r"loss (\S+)", card).group(1)) for card in cards(page)]
    assert losses == sorted(losses)


@pytest.fixture
def alone(opened, tmp_path):
    """A page of images about which nothing was asked, and its table."""
    table = chosen_table(tmp_path / "images", "images", {"number": 7})
    page = opened.context.browser.new_page(viewport={"width": 1400, "height": 900})
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(make(tmp_path, [table]).as_uri())
    page.wait_for_selector("#gallery button")
    yield page, pd.read_parquet(table)
    page.close()


@pytest.mark.browser
@needs_browser
def test_images_alone_are_shown_with_their_losses_and_nothing_of_answers(alone):
    page, table = alone
    assert count(page) == len(table) == 7
    worst = table.loc[table["loss"].idxmax()]
    assert page.locator("#gallery button").first.inner_text().split("\n")[0] == f"image {worst['image_id']}"
    facts = page.inner_text("#facts")
    assert f"Loss rank 1 of {worst['of']} images" in facts
    assert not re.search("Prompt|Question|People|Caption|undefined|null|NaN", facts)
    assert page.is_hidden("#answers")
    assert page.is_hidden("#scores")
    page.fill("#text", worst["image_id"])
    assert page.locator("#gallery button").count() == (table["image_id"].str.contains(worst["image_id"])).sum()
    page.fill("#text", "")
    page.select_option("#sort", "score-down")
    assert page.locator("#gallery button").count() == 7
    assert page.complaints == []


def open_example(page, row):
    """Show one row of the tables."""
    page.select_option("#model", row.model)
    page.select_option("#dataset", row.dataset)
    page.evaluate(f"show(state.shown.findIndex((example) => example.id === '{row.image_id}'))")


def place_of(page, x, y):
    """Where a point of the original image stands on the screen."""
    box = page.locator("#map").bounding_box()
    return box["x"] + x / WIDTH * box["width"], box["y"] + y / HEIGHT * box["height"]


def middle(patch):
    row, col = divmod(patch, GRID[1])
    return BOX[0] + (col + 0.5) * (BOX[2] - BOX[0]) / GRID[1], BOX[1] + (row + 0.5) * (BOX[3] - BOX[1]) / GRID[0]


@pytest.mark.browser
@needs_browser
def test_pointing_at_a_patch_shows_the_number_of_the_table(page, examples):
    row = examples[(examples["model"] == "second") & examples["relevant"].notna()].iloc[1]
    open_example(page, row)
    for key, name in (("1", "squared_error"), ("2", "norm_difference"), ("3", "cosine_error")):
        page.keyboard.press("Escape")
        page.keyboard.press(key)
        for patch, value in enumerate(row[name]):
            page.mouse.move(*place_of(page, *middle(patch)))
            assert page.inner_text("#value") == (
                f"Patch in row {patch // 4 + 1}, column {patch % 4 + 1}: {name.replace('_', ' ')} {value:.{DIGITS}f}; "
                f"{100 * row['covered'][patch]:.0f}% of it in the answer mask"
            )
        worst = page.locator("tr[data-patch]")
        assert [int(patch) for patch in worst.evaluate_all("rows => rows.map(row => row.dataset.patch)")] == (
            worst_patches(row[name]).tolist()
        )
        assert worst.locator("td:nth-child(4)").all_inner_texts() == [
            f"{row[name][patch]:.{DIGITS}f}" for patch in worst_patches(row[name])
        ]
    page.mouse.move(*place_of(page, 5, 20))
    assert page.inner_text("#value") == "The model did not see this part of the image."


@pytest.mark.browser
@needs_browser
def test_colours_lie_where_the_patches_lie(page, examples):
    row = examples[examples["model"] == "second"].iloc[2]
    open_example(page, row)
    page.fill("#opacity", "100")
    page.uncheck("#worst")
    page.uncheck("#mask")
    for key, name, colours in (("1", "squared_error", UNSIGNED), ("2", "norm_difference", SIGNED)):
        page.keyboard.press("Escape")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press(key)
        high = np.abs(row[name]).max()
        low = -high if name == "norm_difference" else 0
        for patch, value in enumerate(row[name]):
            seen = page.evaluate(
                "([x, y]) => { const map = document.getElementById('map'); return Array.from(map.getContext('2d')"
                f".getImageData(x / {WIDTH} * map.width, y / {HEIGHT} * map.height, 1, 1).data) }}",
                list(middle(patch)),
            )
            wanted = matplotlib.colormaps[colours]((value - low) / (high - low), bytes=True)
            assert np.abs(np.subtract(seen, wanted)).max() <= 3


@pytest.mark.browser
@needs_browser
def test_the_outline_lies_where_the_mask_ends(page, examples):
    row = examples[examples["model"] == "second"].iloc[0]
    open_example(page, row)
    page.fill("#opacity", "0")
    page.uncheck("#worst")
    mask = answer_mask(int(row["question_id"][1:]))
    left, top = np.flatnonzero(mask.any(0))[0], np.flatnonzero(mask.any(1))[0]
    white = page.evaluate(
        "([x, y]) => { const map = document.getElementById('map'); return Array.from(map.getContext('2d')"
        f".getImageData(Math.round(x / {WIDTH} * map.width), Math.round(y / {HEIGHT} * map.height), 1, 1).data) }}",
        [float(left) + 3, float(top)],
    )
    assert white[:3] == [255, 255, 255]


@pytest.mark.browser
@needs_browser
def test_keys_move_on_and_read_patches(page, examples):
    last = len(examples)

    def at():
        return int(page.inner_text("#count").split()[0])

    for key, wanted in (("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2), ("End", last), ("ArrowRight", last)):
        page.keyboard.press(key)
        assert at() == wanted
        assert page.locator("#gallery [aria-current]").count() == 1
    page.keyboard.press("Home")
    assert at() == 1
    page.locator("#gallery button").nth(3).click()
    page.keyboard.press("ArrowDown")
    assert at() == 5
    assert page.evaluate("document.activeElement === document.querySelectorAll('#gallery button')[4]")

    page.keyboard.press("Shift+ArrowRight")
    assert "row 1, column 1" in page.inner_text("#value")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowRight")
    assert "row 2, column 2" in page.inner_text("#value")
    assert at() == 5
    page.keyboard.press("Escape")
    assert page.inner_text("#value").startswith("Point at a patch")

    for key, box in (("w", "#worst"), ("g", "#grid"), ("s", "#shared")):
        before = page.is_checked(box)
        page.keyboard.press(key)
        assert page.is_checked(box) != before
    page.keyboard.press("-")
    assert page.input_value("#opacity") == "50"
    page.keyboard.press("?")
    assert page.is_visible("#rule")
    page.keyboard.press("?")

    page.focus("#text")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("2")
    assert page.input_value("#text") == "2"
    assert page.get_attribute("#losses button:nth-child(1)", "aria-pressed") == "true"


@pytest.mark.browser
@needs_browser
def test_texts_from_outside_stay_texts(page):
    page.select_option("#model", "<i>first</i>")
    assert count(page) == 2
    page.wait_for_timeout(100)
    assert NASTY in page.inner_text("#facts")
    assert page.locator("#facts script, #facts img, #gallery script, i").count() == 0
    assert any(NASTY[:20] in card for card in cards(page))


@pytest.mark.browser
@needs_browser
def test_controls_have_names_and_texts_have_contrast_in_light_and_dark(page):
    unnamed = page.evaluate(
        "Array.from(document.querySelectorAll('input, select, button, canvas[role=img]')).filter((it) =>"
        " !(it.ariaLabel || it.labels?.length || it.textContent.trim())).map((it) => it.outerHTML)"
    )
    assert unnamed == []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours = page.evaluate(
            "['ground', 'raised', 'text', 'quiet', 'accent', 'wrong'].map((name) => {"
            " const made = document.body.appendChild(document.createElement('i'));"
            " made.style.color = `var(--${name})`; const colour = getComputedStyle(made).color; made.remove();"
            " return colour.match(/[\\d.]+/g).slice(0, 3).map(Number) })"
        )
        ground, raised, *inks = [luminance(colour) for colour in colours]
        for ink in inks:
            for paper in (ground, raised):
                assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5  # WCAG 2, level AA
    page.emulate_media(color_scheme="light")


def luminance(colour):
    linear = [(part / 255 / 12.92) if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
