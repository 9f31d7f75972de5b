"""Figures 1, 7 and 12 show each patch where it lies, and the numbers of their tables."""

import re
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from example_tables import HEIGHT, WIDTH, answer_mask, chosen_table
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from specs import PLAIN_FIGURES

from lossmap.errors import LossmapError
from lossmap.figures import patch_maps
from lossmap.figures.patch_maps import (
    SIGNED,
    draw_answers,
    draw_captions,
    draw_map,
    draw_numbers,
    draw_outline,
    move_apart,
    show_image,
)
from lossmap.figures.style import use_style
from lossmap.store.layouts import Layout, one_view
from lossmap.study.columns import column
from lossmap.study.example_pictures import picture
from lossmap.study.examples import worst_patches
from lossmap.study.exhibits import figure1, figure7
from lossmap.study.steps import make_exhibit

rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def style():
    use_style()
    yield
    plt.close("all")


def canvas():
    figure = plt.figure(figsize=(3, 3), dpi=100)
    return figure.add_axes((0, 0, 1, 1))


def colour_at(axes, x, y):
    """The colour that a reader sees at a point of the image."""
    axes.figure.canvas.draw()
    pixels = np.asarray(axes.figure.canvas.buffer_rgba())
    column, row = axes.transData.transform((x, y))
    return pixels[pixels.shape[0] - 1 - int(row), int(column), :3].astype(int)


LAYOUTS = [
    Layout(60, 40, one_view((3, 4), None), ((10, 0, 50, 40),)),  # cropped
    Layout(40, 60, one_view((5, 2), None), ((0, 0, 40, 60),)),  # whole
    Layout(40, 40, one_view((4, 4), None), ((-10, -5, 50, 45),)),  # padded
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["cropped", "whole", "padded"])
def test_each_patch_has_its_colour_where_it_lies_on_the_image(layout):
    axes, values = canvas(), rng.normal(size=layout.shape.patches)
    image = np.full((layout.height, layout.width, 3), 77, np.uint8)
    show_image(axes, image, layout)
    norm = Normalize(-3, 3)
    draw_map(axes, values, layout, SIGNED, norm)
    for value, (left, top, right, bottom) in zip(values, layout.patch_boxes, strict=True):
        wanted = np.array(plt.colormaps[SIGNED](norm(value), bytes=True)[:3], int)
        for share in (0.1, 0.5, 0.9):
            seen = colour_at(axes, left + share * (right - left), top + share * (bottom - top))
            assert abs(seen - wanted).max() <= 1


def test_what_the_model_did_not_see_is_pale_and_what_it_saw_is_not():
    axes, layout = canvas(), LAYOUTS[0]
    show_image(axes, np.zeros((40, 60, 3), np.uint8), layout)
    assert (colour_at(axes, 30, 20) == 0).all()
    assert (colour_at(axes, 11, 39) == 0).all()
    for x in (5, 55):
        assert (colour_at(axes, x, 20) > 150).all()


def test_blue_means_that_the_original_is_larger():
    red, _, blue, _ = plt.colormaps[SIGNED](1.0)
    assert blue > red
    red, _, blue, _ = plt.colormaps[SIGNED](0.0)
    assert red > blue


def test_an_outline_follows_the_masks_border():
    axes, mask = canvas(), np.zeros((40, 60), bool)
    mask[10:30, 40:] = True  # it touches the image's edge
    axes.set(xlim=(0, 60), ylim=(40, 0))
    draw_outline(axes, mask)
    points = np.concatenate([path.vertices for path in axes.collections[0].get_paths()])
    distance = np.max([np.abs(points[:, 0] - 50) - 10, np.abs(points[:, 1] - 20) - 10], axis=0)
    assert np.abs(distance).max() <= 0.5
    assert points.min(0) == pytest.approx([40, 10], abs=0.01)
    assert points.max(0) == pytest.approx([60, 30], abs=0.01)


def test_numbers_stand_on_their_patches_in_order():
    axes, layout = canvas(), LAYOUTS[0]
    show_image(axes, np.zeros((40, 60, 3), np.uint8), layout)
    frames = len(axes.patches)
    draw_numbers(axes, np.array([7, 0, 10]), layout)
    for number, patch in zip(axes.texts, (7, 0, 10), strict=True):
        left, top, right, bottom = layout.patch_boxes[patch]
        x, y = number.get_position()
        assert left < x < right
        assert top < y < bottom
    assert [number.get_text() for number in axes.texts] == ["1", "2", "3"]
    corners = [frame.get_xy() for frame in axes.patches[frames : frames + 3] if isinstance(frame, Rectangle)]
    assert corners == [tuple(layout.patch_boxes[patch, :2]) for patch in (7, 0, 10)]


def test_numbers_on_small_patches_keep_off_each_other_and_off_the_patches():
    points = np.array([[50.0, 50], [52, 50], [52, 52], [50, 50], [1, 1], [99, 99]])
    places = move_apart(points, 10, ((0, 100), (0, 100)), points)
    away = np.linalg.norm(places[:, None] - places, axis=-1) + 100 * np.eye(6)
    assert away.min() > 9.9
    others = np.linalg.norm(places[:, None] - points, axis=-1) + 100 * np.eye(6)
    assert others.min() > 9.9
    assert places.min() >= 5 - 1e-9
    assert places.max() <= 95 + 1e-9
    far = np.array([[20.0, 20], [60, 60]])
    np.testing.assert_allclose(move_apart(far, 10, ((0, 100), (0, 100))), far, atol=0.02)


def texts_of(figure):
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


def words(figure):
    return re.sub(r"\s+", " ", texts_of(figure))


def examples(n, **columns):
    table = {
        "model": "toy", "which": "highest", "outcome": "wrong", "rank": 1, "of": 9, "question": "How many?",
        "prediction": "two", "references": [["2", "2", "ii"]] * n, "score": 0.3,
        "scored": "VQA accuracy", "loss": 1.25, "other_loss": 0.5,
        "norm_difference": list(rng.normal(size=(n, 12))), "squared_error": list(rng.gamma(2, size=(n, 12))),
    }  # fmt: skip
    return pd.DataFrame(table | columns, index=range(n))


def pictures(n):
    mask = np.zeros((40, 60), bool)
    mask[10:20, 15:30] = True
    return [(np.zeros((40, 60, 3), np.uint8), mask, LAYOUTS[0])] * n


def test_answers_are_told_with_rule_numbers_and_texts_as_they_are():
    table = examples(1, question="What costs $5 or $6?", prediction="", other_loss=np.nan)
    figure = draw_answers(table, pictures(1), [np.arange(10)])
    figure.canvas.draw()  # a formula in the text would fail here
    found = words(figure)
    for wanted in (
        "Wrong answer, highest squared error", "rank 1 of 9 ranked wrong answers", "What costs $5 or $6?",
        "Model: (nothing); VQA accuracy: 0.3", "People: 2 (2), ii",
        "Squared error: 1.250 in the answer's patches (ranked by this), none in the others",
    ):  # fmt: skip
        assert wanted in found
    assert [text.get_text() for text in figure.axes[2].texts] == [str(number) for number in range(1, 11)]
    assert [axes.get_title() for axes in figure.axes[1:3]] == [
        "signed difference\nof norms",
        "ten largest absolute\ndifferences of norms",
    ]


def test_one_colour_is_one_value_in_all_rows_and_zero_is_in_the_middle():
    values = [np.full(12, 0.5), np.linspace(-4, 1, 12)]
    figure = draw_answers(examples(2, norm_difference=values), pictures(2), [np.arange(10)] * 2)
    maps = [axes.images[-1] for axes in figure.axes if axes.images and axes.images[-1].get_cmap().name == SIGNED]
    assert {(part.norm.vmin, part.norm.vmax) for part in maps} == {(-4, 4)}
    assert len(maps) >= 4


def test_captions_share_colours_within_a_model_only():
    table = examples(4, model=["a", "a", "b", "b"], which=["highest", "lowest"] * 2)
    table["squared_error"] = [np.full(12, value) for value in (2.0, 0.1, 0.5, 0.2)]
    table["references"] = [[f"caption {i}" for i in range(5)]] * 4
    figure = draw_captions(table, pictures(4))
    maps = [image for axes in figure.axes for image in axes.images if image.get_array().shape == (3, 4)]
    assert [part.norm.vmax for part in maps] == [2.0, 2.0, 0.5, 0.5]
    found = words(figure)
    assert "a, highest loss rank 1 of 9 images Squared error 1.250, CIDEr 0.3" in found
    assert "Person: caption 2 (2 more)" in found
    assert "caption 3" not in found


def test_no_text_runs_into_the_next_row():
    long = " ".join(["a very long question indeed"] * 12)
    figure = draw_answers(examples(3, question=long), pictures(3), [np.arange(3)] * 3)
    renderer = figure.canvas.get_renderer()
    blocks = [axes for axes in figure.axes if len(axes.texts) == 3 and not axes.images]
    boxes = [[text.get_window_extent(renderer) for text in axes.texts] for axes in blocks]
    assert len(boxes) == 3
    for upper, lower in pairwise(boxes):
        assert min(box.y0 for box in upper) >= max(box.y1 for box in lower) - 1
    assert all(box.x1 <= figure.bbox.x1 * 1.02 for block in boxes for box in block)


@pytest.mark.parametrize("drawn", [lambda *given: draw_answers(*given, [np.arange(10)] * 2), draw_captions])
def test_type_can_be_read_on_a_page_as_wide_as_a_papers_text(drawn):
    figure = drawn(examples(2, model="qwen2.5-vl-mini", which=["highest", "lowest"], of=5000, rank=4999), pictures(2))
    assert figure.get_figwidth() == 5.5
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 7
    assert figure.get_tightbbox().width <= 5.6


# The exhibits


def make(folder, name, paths):
    """An exhibit: its CSV, its caption."""
    settings = {"dataset": "made-up"} | ({} if name == "figure12" else {"model": "toy"})
    inputs = [f"examples={path}" for path in paths]
    make_exhibit.run(name, results=folder, inputs=inputs, settings=settings, spec=PLAIN_FIGURES)
    table = pd.read_csv(folder / f"tables/{name}.csv")
    assert [name for name in table if column(name) is None] == []
    return table, (folder / f"tables/{name}.rst").read_text()


def test_pictures_come_with_mask_and_layout(tmp_path):
    for row in pd.read_parquet(chosen_table(tmp_path)).itertuples():
        image, mask, layout = picture(row)
        assert image.shape == (HEIGHT, WIDTH, 3)
        np.testing.assert_array_equal(mask, answer_mask(int(row.question_id[1:])))
        assert layout.patch_boxes[0].tolist() == [10, 0, 20, 20]
        assert layout.patch_boxes[7].tolist() == [40, 20, 50, 40]


def test_the_finding_holds_the_numbers_of_the_table(tmp_path):
    path = chosen_table(tmp_path, spec={"number": 100})
    csv, text = make(tmp_path, "figure1", [path])
    table = pd.read_parquet(path)
    for outcome in ("right", "wrong"):
        rows = table[table["outcome"] == outcome]
        for which, row in (("highest", rows.loc[rows["loss"].idxmax()]), ("lowest", rows.loc[rows["loss"].idxmin()])):
            elsewhere = row["squared_error"][~row["relevant"]].mean()
            assert (
                f"- **{outcome} answer, {which} loss** (rank {row['rank']} of {len(rows)} ranked {outcome} answers): "
                f"squared error {row['loss']:.3f} in the patches with the answer, {elsewhere:.3f} in the others; "
                f"VQA accuracy {row['score']:.2g}.\n"
            ) in text
            told = csv[(csv["outcome"] == outcome) & (csv["which"] == which)].iloc[0]
            assert told["image_id"] == row["image_id"]
            assert (told["loss"], told["other_loss"]) == pytest.approx((row["loss"], elsewhere), rel=1e-5)
    assert f"- {12 - len(table)} questions are not ranked" in text
    assert (tmp_path / "figures/figure1.pdf").stat().st_size > 10_000


def test_figure_7_is_figure_1_of_another_model(tmp_path):
    path = chosen_table(tmp_path)
    assert make(tmp_path, "figure7", [path])[0].equals(make(tmp_path, "figure1", [path])[0])
    study = {"models": {}, "figure7": {"dataset": "made-up", "model": "toy"}}
    assert figure7.needs(study) == {"examples": "examples/made-up/toy/answers.parquet"}
    assert figure1.needs(study) == {}
    assert figure7.Settings.of(study).model == "toy"


def test_a_case_that_does_not_occur_is_said_to_be_missing(tmp_path):
    path = chosen_table(tmp_path)
    table = pd.read_parquet(path)
    table[table["outcome"] == "wrong"].to_parquet(path)
    csv, text = make(tmp_path, "figure1", [path])
    assert "- **right answer, lowest loss**: there is none.\n" in text
    assert set(csv["outcome"]) == {"wrong"}


def test_answers_without_a_patch_of_theirs_are_said_to_be_none(tmp_path):
    csv, text = make(tmp_path, "figure1", [chosen_table(tmp_path, masks=False)])
    assert "\n- No question has a patch of which its answer mask covers enough" in text
    assert csv.empty
    assert (tmp_path / "figures/figure1.png").read_bytes().startswith(b"\x89PNG")


def test_a_changed_image_is_not_drawn(tmp_path):
    path = chosen_table(tmp_path)
    for image in tmp_path.glob("*.png"):
        image.write_bytes(image.read_bytes() + b"more")
    with pytest.raises(LossmapError, match="has changed since the manifest was made"):
        make(tmp_path, "figure1", [path])


def test_captions_show_highest_and_lowest_loss_of_each_model_and_are_the_same_file_twice(tmp_path):
    paths = [chosen_table(tmp_path / name, "captions", {"model": name}, seed=i) for i, name in enumerate(("a", "b"))]
    for name in ("first", "second"):
        csv, text = make(tmp_path / name, "figure12", paths)
    for made in ("figures/figure12.pdf", "figures/figure12.png", "tables/figure12.rst", "tables/figure12.csv"):
        assert (tmp_path / "first" / made).read_bytes() == (tmp_path / "second" / made).read_bytes()
    assert list(zip(csv["model"], csv["which"], strict=True)) == [(m, w) for m in "ab" for w in ("highest", "lowest")]
    for name, path in zip("ab", paths, strict=True):
        table = pd.read_parquet(path)
        for which, row in (
            ("highest", table.loc[table["loss"].idxmax()]),
            ("lowest", table.loc[table["loss"].idxmin()]),
        ):
            assert (
                f"- **{name}, {which} loss** (rank {row['rank']} of 12 images): squared error {row['loss']:.3f}, CIDEr "
                f"{row['score']:.1f}.\n"
            ) in text


def test_the_ten_numbered_patches_are_those_of_largest_absolute_difference(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(patch_maps, "draw_answers", lambda *given: seen.append(given) or plt.figure())
    make(tmp_path, "figure1", [chosen_table(tmp_path)])
    table, _, worst = seen[0]
    for row, numbers in zip(table.itertuples(), worst, strict=True):
        assert numbers.tolist() == worst_patches(row.norm_difference).tolist()
