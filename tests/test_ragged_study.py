"""What a study shows of images that differ in layout: relevance, relations, examples, maps and the browser."""

import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from example_tables import HEIGHT, SPEC, WIDTH, answer_mask, chosen_table
from ragged_study import (
    PLAIN_LAYOUT,
    TILED,
    TILED_LAYOUT,
    layouts_of,
    make_ragged_study,
    of_image,
    ragged_dataset,
    ragged_losses,
)
from specs import PLAIN_FIGURES, checked
from test_report import CHROMIUM, FLAGS

from lossmap.errors import LossmapError
from lossmap.figures.patch_maps import UNSIGNED, draw_patch_losses, loss_colours
from lossmap.measures.coverage import patch_coverage
from lossmap.store.images import Images
from lossmap.store.patch_losses import ImageLosses, losses_in_memory, targets
from lossmap.study import example_losses
from lossmap.study.example_losses import layout_of
from lossmap.study.exhibits import figure1, loss_maps, probe
from lossmap.study.steps import (
    choose_examples,
    make_browser,
    make_exhibit,
    measure_relevance,
    relate_answers,
    relate_captions,
)

STATISTICS = {"confidence": 0.95, "resamples": 50, "permutations": 99, "seed": 0}


def chosen(folder, task, monkeypatch, **spec):
    paths, losses = make_ragged_study(folder, task, monkeypatch)
    spec = checked("choose_examples", {**SPEC, "task": task, **spec})
    choose_examples.run(**paths, table=folder / f"{task}.parquet", spec=spec)
    return folder / f"{task}.parquet", losses


def test_masks_lie_on_the_patches_of_every_view(tmp_path, monkeypatch):
    paths, _ = make_ragged_study(tmp_path, "answers", monkeypatch)
    out = tmp_path / "covered.parquet"
    measure_relevance.run(questions=paths["references"], embeddings=paths["embeddings"], relevance=out)
    found = pd.read_parquet(out).set_index("image_id")
    assert found["mask_area"].tolist() == [answer_mask(i).mean() for i in range(12)]
    for i, layout in enumerate(layouts_of(12)):
        covered, mask = np.asarray(found.loc[f"image-{i}", "covered"]), answer_mask(i)
        np.testing.assert_array_equal(np.isnan(covered), ~targets(layout.shape))
        boxes = layout.patch_boxes
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        for view, start in zip(layout.shape.views, layout.shape.starts, strict=True):
            own = slice(start, start + view.rows * view.cols)
            seen = boxes[own][~np.isnan(covered[own])]
            left, top, right, bottom = *seen[:, :2].min(0), *seen[:, 2:].max(0)  # of what has a token
            left, right = (int(np.clip(side, 0, WIDTH)) for side in (left, right))
            pixels = mask[int(max(0, top)) : int(min(HEIGHT, bottom)), left:right].sum()
            assert np.nansum(covered[own] * areas[own]) == pytest.approx(pixels, abs=2e-3)
    whole = patch_coverage(answer_mask(0), TILED_LAYOUT.boxes[0], (2, 3)).ravel()
    np.testing.assert_allclose(found.loc["image-0", "covered"][:6], whole, atol=1e-6)


def test_relations_are_of_all_patches_that_are_reconstructed(tmp_path, monkeypatch):
    paths, losses = make_ragged_study(tmp_path, "answers", monkeypatch)
    scores = pd.read_parquet(paths["scores"]).assign(accuracy_simple=0.5).iloc[::-1]
    scores.to_parquet(paths["scores"])
    out = {"losses": tmp_path / "losses", "relations": tmp_path / "relations"}
    spec = {"dataset": "d", "model": "m", "threshold": 0.5, "right": 0.5, **STATISTICS}
    given = {name: paths[name] for name in ("scores", "relevance", "patch_loss")}
    relate_answers.run(**given, **out, spec=checked("relate_answers", spec))
    found, layouts = pd.read_parquet(out["losses"]), layouts_of(12)
    assert found["image_id"].tolist()[:12] == scores["image_id"].tolist()
    masks = pd.read_parquet(paths["relevance"]).set_index("image_id")["covered"]
    for row in found[found["region"] != "relevant minus irrelevant"].itertuples():
        i = int(row.image_id.removeprefix("image-"))
        covered, wanted = np.asarray(masks[row.image_id]), targets(layouts[i].shape)
        region = wanted & ((covered >= 0.5) if row.region == "relevant" else ~(covered >= 0.5))
        assert row.patches == region.sum()
        assert row.mask_seen == pytest.approx(np.nanmean(covered))
        for name in ("squared_error", "norm_difference"):
            values = of_image(losses[name][1], layouts, i)[region]
            assert getattr(row, name) == pytest.approx(values.mean() if region.any() else np.nan, nan_ok=True, abs=1e-6)
    masks = pd.read_parquet(paths["relevance"])
    masks["covered"] = [part[:3] for part in masks["covered"]]
    masks.to_parquet(paths["relevance"])
    with pytest.raises(LossmapError, match="3 patches an image, but .*toy.zarr has 38. They were made with different"):
        relate_answers.run(**given, **out, spec=checked("relate_answers", spec))


def test_captions_are_given_the_norm_of_all_reconstructed_patches(tmp_path, monkeypatch):
    paths, losses = make_ragged_study(tmp_path, "captions", monkeypatch)
    layouts, ids = layouts_of(12), [f"image-{i}" for i in range(12)]
    text = {"text": "a", "reference_words": np.arange(12) % 5}
    pd.read_parquet(paths["scores"]).assign(**text).drop(columns="text", errors="ignore").assign(text="a").to_parquet(
        paths["scores"]
    )
    means = {name: np.arange(12.0) for name in ("squared_error", "norm_difference", "cosine_error")}
    per_image = pd.DataFrame({"image_id": ids, "reconstructor": "mlp", **means, "best": True})
    per_image.assign(absolute_norm_difference=1.0 * np.arange(12)).to_parquet(tmp_path / "images")
    out = {"losses": tmp_path / "losses", "relations": tmp_path / "relations"}
    spec = checked("relate_captions", {"dataset": "d", "model": "m", **STATISTICS})
    given = {"scores": paths["scores"], "patch_loss": tmp_path / "images", "maps": paths["patch_loss"]}
    relate_captions.run(**given, **out, spec=spec)
    norms = pd.read_parquet(out["losses"]).set_index("image_id")["pre_norm"]
    for i, image in enumerate(ids):
        assert norms[image] == pytest.approx(np.nanmean(of_image(losses["pre_norm"], layouts, i)))


def test_examples_know_their_views_and_their_losses(tmp_path, monkeypatch):
    path, losses = chosen(tmp_path, "answers", monkeypatch)
    layouts, table = layouts_of(12), pd.read_parquet(path)
    assert not {"grid", "box"} & set(table)
    for row in table.itertuples():
        i = int(row.image_id.removeprefix("image-"))
        found = layout_of(row)
        assert found.boxes == layouts[i].boxes
        assert found.shape.views == layouts[i].shape.views
        error = of_image(losses["squared_error"][1], layouts, i)
        np.testing.assert_allclose(row.squared_error, error, rtol=1e-6)
        assert row.loss == pytest.approx(error[row.relevant].mean(), rel=1e-6)
    shown = figure1._shown([path])
    for row in shown.itertuples():
        assert row.other_loss == pytest.approx(np.nanmean(row.squared_error[~row.relevant]), rel=1e-6)
    result = tmp_path / "out"
    settings = {"dataset": "made-up", "model": "toy"}
    make_exhibit.run("figure1", results=result, inputs=[f"examples={path}"], settings=settings, spec=PLAIN_FIGURES)
    assert (result / "figures/figure1.png").stat().st_size > 10_000


def test_losses_of_other_layouts_are_refused(tmp_path, monkeypatch):
    paths, _ = make_ragged_study(tmp_path, "images", monkeypatch)
    other = ragged_dataset([f"image-{i}" for i in range(12)], [PLAIN_LAYOUT] * 12)
    monkeypatch.setattr(example_losses, "open_store", lambda index: other)
    with pytest.raises(LossmapError, match="its images lie otherwise than those of .*Delete .*toy.zarr and run again"):
        example_losses.best_losses(paths["patch_loss"], paths["embeddings"])


def test_loss_maps_show_the_tiles_and_below_them_the_whole_view(tmp_path, monkeypatch):
    paths, losses = make_ragged_study(tmp_path, "images", monkeypatch, n=5)
    given = {name: [paths[name]] for name in ("images", "patch_loss", "embeddings")}
    given["written_with"] = [paths["images"]]
    settings = loss_maps.Settings(dataset="made-up", models=["toy"])
    table = loss_maps.table(settings, **given)
    layouts = layouts_of(5)
    means = [np.nanmean(of_image(losses["squared_error"][1], layouts, i)) for i in range(5)]
    shown = table.drop_duplicates("which")
    assert shown["loss"].to_numpy() == pytest.approx(np.sort(means)[[4, 2, 0]])
    for _, rows in table.groupby("which", sort=False):
        i = int(rows["image_id"].iloc[0].removeprefix("image-"))
        error = of_image(losses["squared_error"][1], layouts, i)
        placed = error[1:] if layouts[i] == PLAIN_LAYOUT else error
        np.testing.assert_allclose(rows["squared_error"], placed, rtol=1e-6)
        assert rows["view"].nunique() == len(layouts[i].boxes)
    assert loss_maps.findings(table, settings)[-1] == loss_maps.SEVERAL
    figure = loss_maps.draw(table, settings, **given)["loss_maps-made-up-toy"]
    figure.savefig(tmp_path / "maps.png")
    plt.close("all")


def colour_at(axes, x, y):
    axes.figure.canvas.draw()
    pixels = np.asarray(axes.figure.canvas.buffer_rgba())
    column, row = axes.transData.transform((x, y))
    return pixels[pixels.shape[0] - 1 - int(row), int(column), :3].astype(int)


def test_each_loss_has_its_colour_where_it_lies():
    layouts = layouts_of(2)
    batch = {name: values[:1] if values.ndim == 2 else values for name, values in ragged_losses(layouts).items()}
    losses = losses_in_memory([batch], ragged_dataset(["a", "b"], layouts), {})
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    with pytest.raises(LossmapError, match="say which one is drawn: position=0"):
        draw_patch_losses(image, losses)
    axes = plt.figure(figsize=(3, 3), dpi=100).add_axes((0, 0, 1, 1))
    axes = draw_patch_losses(image, losses, axes, position=0)
    values, every = ImageLosses(losses).values("squared_error", 0), loss_colours(1)
    every = loss_colours(np.nanmax(values))
    wanted = targets(TILED)
    for x, y in ((3, 2), (33, 38), (4, 8), (11, 30), (31, 21), (58, 34)):
        patch = [patch for patch in TILED_LAYOUT.patch_of_pixel(x, y) if wanted[patch]][-1]
        colour = 0.75 * np.array(plt.colormaps[UNSIGNED](every(values[patch]), bytes=True)[:3], float)
        assert abs(colour_at(axes, x + 0.5, y + 0.5) - colour).max() <= 2, (x, y)
    assert colour_at(axes, 30.5, 45).min() > 150  # padding, of which there is no loss
    plt.close("all")


def test_the_probes_figure_draws_views(tmp_path, monkeypatch):
    paths, _ = make_ragged_study(tmp_path, "images", monkeypatch, n=5)
    store, rng = example_losses.open_store(None), np.random.default_rng(0)
    rows = []
    for i in range(5):
        from lossmap.store.maps import places

        shape = Images(store).shape(i)
        found, counted = places(shape), targets(shape)
        values = np.where(counted, rng.random(shape.patches), np.nan)[found.patch]
        columns = {"view": found.view, "row": found.row, "col": found.col, "random": values, "towards": values}
        rows.append(pd.DataFrame({"image_id": f"image-{i}", **columns}))
    pd.concat(rows).to_parquet(tmp_path / "probe")
    monkeypatch.setattr("lossmap.store.index.open_store", lambda index: store)
    settings = probe.Settings(dataset="made-up", models=["toy"], images=5, confidence=0.95)
    given = {"patches": [tmp_path / "probe"], "embeddings": [None], "images": [paths["images"]]}
    figure = probe.draw(None, settings, [], **given)
    assert len(figure.axes) == 7  # two images of three panels, and a colour bar
    figure.canvas.draw()
    plt.close("all")


# The browser


def content(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.S).group(1))


def test_the_browser_shows_each_view_and_the_finest(tmp_path, monkeypatch):
    path, losses = chosen(tmp_path / "ragged", "answers", monkeypatch, model="tiled", number=12)
    captions, _ = chosen(tmp_path / "captions", "captions", monkeypatch, model="tiled", dataset="captioned")
    monkeypatch.undo()
    plain = chosen_table(tmp_path / "plain", "answers", {"model": "square", "number": 12})
    page = tmp_path / "browser.html"
    spec = checked("make_browser", {"study": "made-up", "most": 200, "megabytes": 15})
    make_browser.run(examples=[path, captions, plain], page=page, spec=spec)
    shown = content(page)["examples"]
    assert {len(example.get("views", [])) for example in shown} == {0, 1, 3}
    assert all(("box" in example) == (example["model"] == "square") for example in shown)
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    example = next(each for each in shown if len(each.get("views", [])) == 3 and each["mask"])
    error = of_image(losses["squared_error"][1], layouts_of(12), int(example["id"].removeprefix("image-")))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        complaints = []
        tab.on("pageerror", lambda fault: complaints.append(str(fault)))
        name = f"tiled/made-up/answers/{example['question_id']}"
        tab.goto(f"{page.as_uri()}#example={name}")

        def point(x, y):
            """At a point of the image, which stands 10 pixels below the canvas's top: the tiles' padding."""
            box = tab.locator("#map").bounding_box()
            zoom = box["width"] / WIDTH
            tab.mouse.move(box["x"] + x * zoom, box["y"] + (y + 10) * zoom)
            return tab.inner_text("#value")

        assert tab.locator("#views").is_visible()
        options = tab.locator("#view option:not([hidden])").all_inner_texts()
        assert options == ["finest patches", "whole image", "tile 1", "tile 2"]
        assert point(40, 22).startswith(f"Patch in row 3, column 2 of tile 2: squared error {error[22 + 9]:.4f}")
        assert point(40.5, 2).startswith(f"Patch in row 1, column 3 of whole image: squared error {error[2]:.4f}")
        assert point(40, 45) == "The model did not see this part of the image."
        assert "tile 1" in tab.inner_text("#facts")
        tab.locator("#viewer").screenshot(path=str(tmp_path / "finest.png"))
        tab.select_option("#view", "whole image")
        assert point(40.5, 22).startswith(f"Patch in row 2, column 3 of whole image: squared error {error[5]:.4f}")
        tab.select_option("#view", "tile 1")
        assert point(40, 22) == "The tile 1 does not show this part of the image."
        tab.locator("#viewer").screenshot(path=str(tmp_path / "tile.png"))
        tab.wait_for_timeout(300)
        assert "view=tile+1" in tab.url
        tab.reload()
        assert tab.input_value("#view") == "tile 1"
        tab.keyboard.press("Shift+ArrowRight")
        assert "row 2, column 1 of tile 1" in tab.inner_text("#value")
        tab.keyboard.press("Shift+ArrowRight")
        assert "row 2, column 2 of tile 1" in tab.inner_text("#value")
        tab.goto("about:blank")
        square = next(each for each in shown if each["model"] == "square")
        tab.goto(f"{page.as_uri()}#example=square/made-up/answers/{square['question_id']}")
        assert not tab.locator("#views").is_visible()
        browser.close()
    assert complaints == []
