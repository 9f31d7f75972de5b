"""Figures show what their tables hold."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lossmap.figures.overlap import overlap_by_k
from lossmap.figures.query import neighbours_of_query
from lossmap.figures.style import KEPT, LOST, rename, save, use_style


@pytest.fixture(autouse=True)
def style():
    use_style()
    yield
    plt.close("all")


def table(reported=np.nan):
    rows = [
        {
            "model": model,
            "k": k,
            "overlap": value,
            "overlap_low": value - 0.1,
            "overlap_high": value + 0.1,
            "chance": k / 200,
        }
        for model, start in (("first", 0.3), ("second", 0.5))
        for k, value in ((10, start), (100, start + 0.2))
    ]
    return pd.DataFrame(rows).assign(overlap_reported=reported)


def lines(axes):
    return {line.get_label(): line.get_ydata().tolist() for line in axes.lines}


def test_overlap_is_drawn_with_interval_and_chance():
    _, axes = plt.subplots()
    overlap_by_k(axes, table())
    assert lines(axes) == {"first": [0.3, 0.5], "second": [0.5, 0.7], "chance": [0.05, 0.5]}
    assert len(axes.collections) == 2
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(0.2)
    assert band.max() == pytest.approx(0.6)


def test_reported_values_are_drawn_where_there_are_any():
    _, axes = plt.subplots()
    overlap_by_k(axes, table(reported=0.4))
    assert lines(axes)["first, paper"] == [0.4, 0.4]


def test_models_differ_by_more_than_colour():
    _, axes = plt.subplots()
    overlap_by_k(axes, table())
    assert len({line.get_marker() for line in axes.lines[:2]}) == 2


def test_a_query_shows_which_neighbours_are_kept():
    images = [np.full((8, 6 + i, 3), 40 * i, np.uint8) for i in range(3)]
    figure = neighbours_of_query(images[0], images, images, (["a", "b", "c"], ["c", "x", "a"]))
    frames = [axes.spines["left"].get_edgecolor() for axes in figure.axes if axes.images]
    kept = sum(plt.matplotlib.colors.to_hex(colour) == KEPT.lower() for colour in frames)
    lost = sum(plt.matplotlib.colors.to_hex(colour) == LOST.lower() for colour in frames)
    assert (kept, lost) == (4, 2)
    assert len(figure.artists) == 2  # one line per kept neighbour
    assert "overlap = 2/3 = 0.67" in figure.get_suptitle()


def test_a_figure_is_the_same_file_twice(tmp_path):
    for i in range(2):
        figure, axes = plt.subplots()
        overlap_by_k(axes, table())
        save(figure, tmp_path / f"{i}.pdf", tmp_path / f"{i}.png")
    for ending in ("pdf", "png"):
        assert (tmp_path / f"0.{ending}").read_bytes() == (tmp_path / f"1.{ending}").read_bytes()


def test_figures_call_models_what_a_study_says():
    figure, axes = plt.subplots()
    axes.plot([0, 1], [0, 1], label="llava")
    axes.set_title("llava on llava-set")
    axes.set_xticks([0, 1], ["llava", "other"])
    axes.legend()
    rename(figure, {"llava": "LLaVA-1.5", "other": "llava"})
    figure.canvas.draw()
    assert axes.get_title() == "LLaVA-1.5 on llava-set"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["LLaVA-1.5", "llava"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["LLaVA-1.5"]


def test_a_palette_is_every_modules():
    use_style("Dark2")
    try:
        _, axes = plt.subplots()
        overlap_by_k(axes, table())
        assert axes.lines[0].get_color() == "#1b9e77"
    finally:
        use_style()
