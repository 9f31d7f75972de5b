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
OPTION = "#gallery [role=option]"
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
    return int(re.match(r"(\d+) of \d+ examples? match", page.inner_text("#count")).group(1))


def at(page):
    return int(re.search(r"; example (\d+) of", page.inner_text("#count")).group(1))


def cards(page):
    return page.locator(OPTION).all_inner_texts()


def level(row, name="squared_error", answer=False):
    """What examples are sorted by: the mean loss of the whole image, or of the patches with the answer."""
    size = np.abs(getattr(row, name).astype(float))
    return size[row.relevant].mean() if answer else size.mean()


def losses(page, part=""):
    return [float(re.search(rf"{part}loss (\S+)", card).group(1)) for card in page.locator(OPTION).all_inner_texts()]


@pytest.mark.browser
@needs_browser
def test_it_opens_with_all_examples_from_the_highest_loss_down(page, examples):
    assert count(page) == len(examples)
    wanted = sorted((level(row) for row in examples.itertuples()), reverse=True)
    assert losses(page, "image ") == pytest.approx(wanted, abs=1e-4)
    assert page.inner_text("#count") == f"{len(wanted)} of {len(wanted)} examples match; example 1 of {len(wanted)}"


def wait_for_all(page, examples):
    from playwright.sync_api import expect

    expect(page.locator(OPTION)).to_have_count(len(examples))


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
    assert page.inner_text("#count") == f"0 of {len(examples)} examples match"
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
    assert page.locator("#gallery .head").all_inner_texts() == ["accuracy of choice", "CIDEr", "VQA accuracy"]
    page.select_option("#sort", "image-up")
    assert losses(page, "image ") == sorted(losses(page, "image "))
    assert at(page) == 1  # in a new order, the first


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("direction", ["down", "up"])
def test_losses_of_answers_are_not_sorted_among_those_of_images(page, examples, direction):
    page.select_option("#sort", f"answer-{direction}")
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    for key, name in (("1", "squared_error"), ("3", "cosine_error")):
        page.keyboard.press(key)
        known = examples["relevant"].notna()
        wanted = [sorted((level(row, name, answer) for row in examples[rows].itertuples()), reverse=direction == "down")
                  for rows, answer in ((known, True), (~known, False))]  # fmt: skip
        shown = losses(page)
        assert shown == pytest.approx(wanted[0] + wanted[1], abs=1e-4)
        assert ["answer loss" in card for card in cards(page)] == [True] * known.sum() + [False] * (~known).sum()
        (last,) = page.locator("#gallery [role=group]").all()
        assert (
            last.get_attribute("aria-label")
            == "Last: examples without patches of an answer, by loss of the whole image"
        )
        assert last.locator("[role=option]").count() == (~known).sum()


@pytest.fixture
def alone(opened, tmp_path):
    """A page of images about which nothing was asked, and its table."""
    table = chosen_table(tmp_path / "images", "images", {"number": 7})
    page = opened.context.browser.new_page(viewport={"width": 1400, "height": 900})
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(make(tmp_path, [table]).as_uri())
    page.wait_for_selector(OPTION)
    yield page, pd.read_parquet(table)
    page.close()


@pytest.mark.browser
@needs_browser
def test_images_alone_are_shown_with_their_losses_and_nothing_of_answers(alone):
    page, table = alone
    assert count(page) == len(table) == 7
    worst = table.loc[table["loss"].idxmax()]
    assert page.locator(OPTION).first.inner_text().split("\n")[0] == f"image {worst['image_id']}"
    facts = page.inner_text("#facts")
    assert f"Loss rank 1 of {worst['of']} images" in facts
    assert not re.search("Prompt|Question|People|Caption|undefined|null|NaN", facts)
    assert page.is_hidden("#answers")
    assert page.is_hidden("#scores")
    page.fill("#text", worst["image_id"])
    assert page.locator(OPTION).count() == (table["image_id"].str.contains(worst["image_id"])).sum()
    page.fill("#text", "")
    page.select_option("#sort", "score-down")
    assert page.locator(OPTION).count() == 7
    assert page.is_hidden("#beside")  # there is but one model
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
    for key, wanted in (("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2), ("End", last), ("ArrowRight", last)):
        page.keyboard.press(key)
        assert at(page) == wanted
        assert page.locator("#gallery [aria-selected=true]").count() == 1
    page.keyboard.press("Home")
    assert at(page) == 1
    page.locator(OPTION).nth(3).click()
    page.keyboard.press("ArrowDown")
    assert at(page) == 5
    assert page.evaluate(f"document.activeElement === document.querySelectorAll('{OPTION}')[4]")

    page.keyboard.press("Shift+ArrowRight")
    assert "row 1, column 1" in page.inner_text("#value")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowRight")
    assert "row 2, column 2" in page.inner_text("#value")
    assert at(page) == 5
    page.keyboard.press("Escape")
    assert page.inner_text("#value").startswith("Point at a patch")

    for key, box in (("w", "#worst"), ("g", "#grid"), ("s", "#shared")):
        before = page.is_checked(box)
        page.keyboard.press(key)
        assert page.is_checked(box) != before
    page.keyboard.press("-")
    assert page.input_value("#opacity") == "50"
    page.keyboard.press("?")
    assert "half go to items that come first in an order made of their ids alone" in page.inner_text("#rules")
    page.uncheck("#letters")
    page.keyboard.press("1")
    page.keyboard.press("g")
    assert page.is_checked("#grid")  # as it was left
    page.check("#letters")
    page.keyboard.press("?")
    assert page.is_hidden("#rules")

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
        assert page.evaluate(CONTRASTS) == []
        colours = page.evaluate(
            "['ground', 'raised', 'text', 'quiet', 'accent', 'wrong', 'edge'].map((name) => {"
            " const made = document.body.appendChild(document.createElement('i'));"
            " made.style.color = `var(--${name})`; const colour = getComputedStyle(made).color; made.remove();"
            " return colour.match(/[\\d.]+/g).slice(0, 3).map(Number) })"
        )
        ground, raised, *inks, edge = [luminance(colour) for colour in colours]
        for paper in (ground, raised):
            for ink in inks:
                assert contrast(ink, paper) >= 4.5  # WCAG 2, level AA
            assert contrast(edge, paper) >= 3  # of what is not text
    page.emulate_media(color_scheme="light")


# What stands on the page with too little contrast: every text with the ground that it stands on.
CONTRASTS = """() => {
  document.getElementById("help").open = true;
  document.getElementById("beside").click();
  document.getElementById("grid").focus();
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => parts(colour).slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (it) => {
    const colour = getComputedStyle(it).backgroundColor;
    return parts(colour)[3] === 0 ? ground(it.parentElement) : colour;
  };
  const texts = Array.from(document.querySelectorAll("body *")).filter((it) => it.checkVisibility() && !it.disabled &&
    (Array.from(it.childNodes).some((node) => node.nodeType === 3 && node.data.trim())));
  if (texts.length < 100) return ["hardly any text is seen"];
  return texts.filter((it) => {
    const [a, b] = [light(getComputedStyle(it).color), light(ground(it))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
  }).map((it) => it.outerHTML.slice(0, 200));
}"""


def contrast(one, other):
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def luminance(colour):
    linear = [(part / 255 / 12.92) if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


# By keyboard alone


def focused(page, selector):
    return page.evaluate("(selector) => document.activeElement.matches(selector)", selector)


def tab_to(page, selector, key="Tab", most=40):
    """Press Tab until an element has the focus. Returns: how often."""
    for presses in range(1, most + 1):
        page.keyboard.press(key)
        if focused(page, selector):
            return presses
    raise AssertionError(f"{selector} is not reached")


@pytest.mark.browser
@needs_browser
def test_the_list_is_one_stop_between_filters_and_map(page, examples):
    page.focus("#text")
    tab_to(page, OPTION)
    assert page.locator("#gallery [tabindex='0']").count() == 1
    page.keyboard.press("Tab")
    assert not focused(page, OPTION)
    assert tab_to(page, "#map", most=15) < 15
    tab_to(page, OPTION, key="Shift+Tab")
    for key, wanted in (("ArrowDown", 2), ("ArrowDown", 3), ("ArrowUp", 2), ("End", len(examples)), ("Home", 1)):
        page.keyboard.press(key)
        assert at(page) == wanted
        assert page.evaluate(f"Array.from(document.querySelectorAll('{OPTION}')).indexOf(document.activeElement)") == (
            wanted - 1
        )
    page.keyboard.press("End")
    page.keyboard.press("Tab")
    tab_to(page, OPTION, key="Shift+Tab")
    assert at(page) == len(examples)  # the list remembers where one was
    page.keyboard.press("2")  # another loss, another order: the focus stays with the example
    assert focused(page, f"{OPTION}[aria-selected=true]")
    roles = page.locator("#gallery, #gallery > *").evaluate_all("all => all.map((it) => it.getAttribute('role'))")
    assert set(roles) == {"listbox", "option"}


@pytest.mark.browser
@needs_browser
def test_everything_is_reached_by_keys_alone(page, examples):
    tab_to(page, "#sort")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#sort") == "image-up"
    assert losses(page) == sorted(losses(page))
    tab_to(page, "#several")
    page.keyboard.press("Space")
    assert 0 < count(page) < len(examples)
    tab_to(page, "#next")
    page.keyboard.press("Enter")
    assert at(page) == 2
    for button in ("#link", "#csv", "#png"):
        tab_to(page, button)
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename.endswith(".png")
    tab_to(page, OPTION)
    page.keyboard.press("ArrowDown")
    tab_to(page, "#beside")
    page.keyboard.press("Space")
    assert panels(page).count() > 1
    tab_to(page, "#map")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowRight")
    assert "row 1, column 2" in page.inner_text("#value")
    page.keyboard.press("ArrowRight")
    assert at(page) == 4
    assert focused(page, "#map")  # the map of the next example
    tab_to(page, "#facts")
    tab_to(page, "#help summary", key="Shift+Tab", most=60)
    page.keyboard.press("Enter")
    assert page.is_visible("#rules")
    page.keyboard.press("Escape")
    assert page.is_hidden("#rules")


# Several models side by side


def panels(page):
    return page.locator("#maps figure:visible")


@pytest.fixture
def beside(page, examples):
    """Two models side by side, on an image that both have, and their rows."""
    both = examples[(examples["dataset"] == "made-up") & examples["model"].isin(["first", "second"])]
    item = both["question_id"][both["question_id"].duplicated()].iloc[1]
    rows = both[both["question_id"] == item].sort_values("model")
    open_example(page, rows.iloc[1])
    page.check("#beside")
    page.evaluate("document.activeElement.blur()")
    return page, [rows.iloc[0], rows.iloc[1]]


@pytest.mark.browser
@needs_browser
def test_side_by_side_all_maps_have_one_scale(beside):
    page, rows = beside
    assert panels(page).locator("b").all_inner_texts() == ["first", "second"]
    assert panels(page).locator("canvas").nth(1).get_attribute("id") == "map"  # of the example
    assert "(2 models)" in page.inner_text("#controls")
    chosen = {"id": "Chosen by its id, whatever its loss", "loss": "Chosen by its rank of loss, for this model."}
    assert chosen[rows[1]["chosen_by"]] in page.inner_text("#facts")
    assert "One scale for all maps" in page.inner_text("#unit")
    page.fill("#opacity", "100")
    page.uncheck("#worst")
    page.uncheck("#mask")
    page.evaluate("document.activeElement.blur()")
    for key, name, colours in (("1", "squared_error", UNSIGNED), ("2", "norm_difference", SIGNED)):
        page.keyboard.press(key)
        high = max(np.abs(row[name]).max() for row in rows)
        low = -high if name == "norm_difference" else 0
        for row, canvas in zip(rows, panels(page).locator("canvas").all(), strict=True):
            for patch, value in enumerate(row[name]):
                seen = canvas.evaluate(
                    "(map, [x, y]) => Array.from(map.getContext('2d')"
                    f".getImageData(x / {WIDTH} * map.width, y / {HEIGHT} * map.height, 1, 1).data)",
                    list(middle(patch)),
                )
                wanted = matplotlib.colormaps[colours]((value - low) / (high - low), bytes=True)
                assert np.abs(np.subtract(seen, wanted)).max() <= 3
        assert float(page.locator("#ticks span").last.inner_text()) == pytest.approx(high, rel=0.05)


@pytest.mark.browser
@needs_browser
def test_side_by_side_a_patch_is_read_in_all_maps(beside):
    page, rows = beside
    box = panels(page).locator("canvas").nth(0).bounding_box()  # of the other model
    x, y = middle(6)
    page.mouse.move(box["x"] + x / WIDTH * box["width"], box["y"] + y / HEIGHT * box["height"])
    lines = page.inner_text("#value").split("\n")
    for line, row in zip(lines, rows, strict=True):
        assert line.startswith(
            f"{row['model']}: Patch in row 2, column 3: squared error {row['squared_error'][6]:.4f}; "
        )
    for caption, row in zip(panels(page).locator("figcaption").all_inner_texts(), rows, strict=True):
        assert f"squared error: {level(row):.4f} of the whole image, {level(row, answer=True):.4f} in the" in caption
        assert f"VQA accuracy {row['score']:.2f}" in caption
    page.keyboard.press("c")
    assert panels(page).count() == 1
    assert page.inner_text("#maps figcaption >> nth=0") == ""


@pytest.mark.browser
@needs_browser
def test_images_of_several_models_are_found(page, examples):
    models = examples.groupby(["dataset", "image_id"])["model"].transform("nunique")
    page.check("#several")
    assert count(page) == (models > 1).sum() < len(examples)
    page.uncheck("#several")
    wait_for_all(page, examples)
    page.select_option("#sort", "together")
    heads = page.locator("#gallery .head").all_inner_texts()
    numbers = [int(head.split()[0]) for head in heads]
    assert numbers == sorted(numbers, reverse=True)
    assert len(heads) == len(examples.groupby(["dataset", "image_id"]))
    page.check("#beside")
    assert panels(page).count() == numbers[0] > 1
    assert page.is_hidden("#lonely")
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("End")
    assert panels(page).count() == 1
    assert page.is_visible("#lonely")


# Links


@pytest.mark.browser
@needs_browser
def test_a_link_opens_the_example_the_loss_and_the_filters(page, examples):
    page.evaluate("() => { navigator.clipboard.writeText = async (text) => { window.copied = text } }")
    assert page.input_value("#sort") == "image-down"
    page.select_option("#sort", "answer-up")
    page.select_option("#model", "second")
    page.fill("#loss-to", "5")
    page.fill("#text", "picture")
    page.check("#grid")
    page.fill("#opacity", "35")
    page.check("#beside")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("3")
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.click("#link")
    page.wait_for_function("window.copied")
    link, wanted = page.evaluate("window.copied"), seen(page)
    assert link.startswith(page.address + "#")
    assert page.inner_text("#done") == "Link copied."
    page.wait_for_function("(link) => location.href === link", arg=link)  # so that the address can be copied, too

    other = page.context.browser.new_page()
    other.goto(link)
    assert seen(other) == wanted
    assert "example 4 of" in wanted["count"]
    other.goto(page.address)
    assert seen(other)["count"] == f"{len(examples)} of {len(examples)} examples match; example 1 of {len(examples)}"
    other.evaluate("(link) => { location.hash = link.split('#')[1] }", link)  # into the page that is open
    other.wait_for_function("document.getElementById('opacity').value === '35'")
    assert seen(other) == wanted
    other.close()


def seen(page):
    fields = page.evaluate("Array.from(fields(), (field) => [field.id, valueIn(field)])")
    pressed = page.locator("#losses [aria-pressed=true]").inner_text()
    return {"count": page.inner_text("#count"), "facts": page.inner_text("#facts"), "loss": pressed, "fields": fields}


@pytest.mark.browser
@needs_browser
def test_a_link_of_another_page_says_so_and_shows_what_there_is(page, examples):
    other = page.context.browser.new_page()
    other.goto(
        f"{page.address}#example=gone/made-up/answers/q1&model=gone&loss=gone&sort=answer-up&beside=yes&text=%3Cb%3E"
    )
    assert other.inner_text("#done") == "The link's example is not on this page."
    assert other.input_value("#model") == ""
    assert other.input_value("#sort") == "answer-up"
    assert other.input_value("#text") == "<b>"
    other.goto("about:blank")
    row = examples[examples["model"] == "second"].iloc[0]
    other.goto(f"{page.address}#example=second/made-up/answers/{row.question_id}&model=first")
    assert other.inner_text("#done") == "The link's example does not fit its filters."
    other.goto("about:blank")
    other.goto(f"{page.address}#example=second/made-up/answers/{row.question_id}")
    assert f"second on made-up, image {row.image_id}" in other.inner_text("#facts")
    other.close()


# Exports


@pytest.mark.browser
@needs_browser
def test_the_list_is_saved_as_csv_with_the_numbers_of_the_tables(page, examples, tmp_path):
    page.select_option("#sort", "answer-down")
    page.fill("#score-to", "0.9")
    with page.expect_download() as download:
        page.click("#csv")
    assert download.value.suggested_filename == "made-up-examples.csv"
    download.value.save_as(tmp_path / "list.csv")
    table = pd.read_csv(tmp_path / "list.csv", keep_default_na=False, na_values={"score": [""]})
    wanted = examples[examples["score"] <= 0.9]
    assert len(table) == len(wanted) == count(page)
    place = {(row.model, row.dataset, row.image_id): row for row in wanted.itertuples()}
    for line in table.itertuples():
        row = place[line.model, line.dataset, line.image_id]
        assert (line.prediction, line.question) == (row.prediction, row.question or row.prompt)  # attacks are texts
        assert (line.score, line.score_name, line.outcome) == (row.score, row.scored, row.outcome or "")
        assert (line.rank, line.of, line.chosen_by, line.task) == (row.rank, row.of, row.chosen_by, row.task)
        assert sum(times for _, times in json.loads(line.references)) == len(row.references)
        assert line.squared_error == pytest.approx(level(row))
        assert line.absolute_norm_difference == pytest.approx(level(row, "norm_difference"))
        if row.relevant is None:
            assert line.cosine_error_answer == ""
        else:
            assert float(line.cosine_error_answer) == pytest.approx(level(row, "cosine_error", answer=True))
            assert float(line.cosine_error_other) == pytest.approx(row.cosine_error[~row.relevant].mean())
    assert table["squared_error_answer"].replace("", 0).astype(float).is_monotonic_decreasing  # the list's order
    assert NASTY in set(table["prediction"])


@pytest.mark.browser
@needs_browser
def test_the_maps_are_saved_as_png(beside, tmp_path):
    page, rows = beside
    page.fill("#opacity", "100")
    page.uncheck("#worst")
    page.uncheck("#mask")
    for several in (True, False):
        page.set_checked("#beside", several)
        with page.expect_download() as download:
            page.click("#png")
        name = f"made-up-made-up-{rows[1]['image_id']}-{'models' if several else 'second'}-squared_error.png"
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / name)
        picture = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        shown = rows if several else rows[1:]
        assert picture.shape[1] == 48 + len(shown) * (960 + 48)
        high = max(row["squared_error"].max() for row in shown)
        colours = {tuple(colour) for colour in picture[::7, ::7].reshape(-1, 3).tolist()}
        for row in shown:
            for value in row["squared_error"]:
                wanted = matplotlib.colormaps[UNSIGNED](value / high, bytes=True)[:3]
                assert min(np.abs(np.subtract(colour, wanted)).max() for colour in colours) <= 3


# On a phone


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("width", [360, 320])
def test_a_phone_shows_all_without_scrolling_sideways(page, examples, width):
    other = page.context.browser.new_page(viewport={"width": width, "height": 740}, has_touch=True)
    other.goto(page.address)
    other.wait_for_selector(OPTION)
    assert other.is_hidden("#filters")  # the map comes first
    assert fits(other, width)
    other.tap("#sorting > summary")
    assert other.is_visible("#filters")
    assert fits(other, width)
    other.select_option("#model", "<i>first</i>")  # with texts that are one long word
    assert fits(other, width)
    other.select_option("#model", "")
    other.select_option("#sort", "together")
    other.check("#beside")
    assert panels(other).count() == 2
    assert fits(other, width)
    other.tap("#next")
    assert at(other) == 2
    other.locator("#map").tap()
    assert "Patch in row" in other.inner_text("#value")
    other.tap("#help > summary")
    assert fits(other, width)
    other.close()


def fits(page, width):
    """Whether nothing reaches beyond the screen, not even into a part that is scrolled."""
    page.wait_for_timeout(50)
    beyond = page.evaluate(
        "(width) => Array.from(document.querySelectorAll('body *')).filter((it) => it.checkVisibility() &&"
        " it.getBoundingClientRect().right > width + 0.5 && getComputedStyle(it.parentElement).overflowX !== 'hidden')"
        ".map((it) => it.outerHTML.slice(0, 200))",
        width,
    )
    assert beyond == []
    return page.evaluate("document.scrollingElement.scrollWidth") <= width
