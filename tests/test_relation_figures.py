"""Figure 5 shows what its table holds."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from lossmap.figures.relations import correlation_by_loss
from lossmap.figures.style import save, use_style
from lossmap.study.exhibits import figure5

ENDS = {"low": -0.1, "high": 0.15}
GIVEN = "patches, given patch norm and mask area"
LINES = ["squared error", "absolute norm\ndifference", "cosine error"]
LOSSES = ["squared_error", "absolute_norm_difference", "cosine_error"]


@pytest.fixture(autouse=True)
def style():
    use_style()
    yield
    plt.close("all")


def table(model="one", dataset="vizwiz", undefined=()):
    rows = [
        {
            "dataset": dataset,
            "model": model,
            "scored": "vqa_match",
            "region": region,
            "loss_kind": loss,
            "questions_used": 90,
            "partial_rho": rho,
            "raw_rho": 3 * rho,
        }
        for region, rhos in (("relevant", (-0.3, -0.2, -0.1)), ("irrelevant", (0.1, 0.2, 0.0)))
        for loss, rho in zip(LOSSES, rhos, strict=True)
    ]
    frame = pd.DataFrame(rows)
    frame.loc[list(undefined), ["partial_rho", "raw_rho"]] = np.nan
    for name in ("partial_rho", "raw_rho"):
        for end, add in ENDS.items():
            frame[f"{name}_{end}"] = frame[name] + add
    return frame


def drawn(axes):
    """Points and ends of the intervals, by label."""
    found = {}
    for bar in axes.containers:
        line, _, (whiskers,) = bar.lines
        found[bar.get_label()] = line.get_xdata().tolist(), [path[:, 0].tolist() for path in whiskers.get_segments()]
    return found


def test_points_and_intervals_are_those_of_the_table():
    _, axes = plt.subplots()
    correlation_by_loss(axes, table())
    points, intervals = drawn(axes)[f"relevant {GIVEN}"]
    assert points == [-0.3, -0.2, -0.1]
    assert np.allclose(intervals, [[-0.4, -0.15], [-0.3, -0.05], [-0.2, 0.05]])
    points, _ = drawn(axes)[f"irrelevant {GIVEN}"]
    assert points == [0.1, 0.2, 0.0]
    points, intervals = drawn(axes)["relevant patches, raw"]
    assert np.allclose(points, [-0.9, -0.6, -0.3])
    assert np.allclose(intervals, [[-1, -0.75], [-0.7, -0.45], [-0.4, -0.15]])
    assert [label.get_text() for label in axes.get_yticklabels()] == LINES


def test_an_interval_need_not_hold_its_point():
    """A percentile bootstrap of few items may not."""
    _, axes = plt.subplots()
    correlation_by_loss(axes, table().assign(partial_rho_low=0.6, partial_rho_high=0.9))
    points, intervals = drawn(axes)[f"relevant {GIVEN}"]
    assert points == [-0.3, -0.2, -0.1]
    assert np.allclose(intervals, [[0.6, 0.9]] * 3)
    assert axes.get_xlim()[0] < -0.3


def test_regions_and_kinds_differ_by_more_than_colour():
    _, axes = plt.subplots()
    correlation_by_loss(axes, table())
    lines = {bar.get_label(): bar.lines[0] for bar in axes.containers}
    looks = {(line.get_marker(), to_hex(line.get_markerfacecolor()) == "#ffffff") for line in lines.values()}
    assert len(looks) == 4
    places = np.concatenate([line.get_ydata() for line in lines.values()])
    assert len(set(places)) == 12


def test_the_finding_stands_out_from_the_raw_value():
    """Given patch norm and mask area: filled, larger, with a thicker interval; raw: hollow and faint."""
    _, axes = plt.subplots()
    correlation_by_loss(axes, table())
    bars = {bar.get_label(): bar for bar in axes.containers}
    for region in ("relevant", "irrelevant"):
        given, raw = bars[f"{region} {GIVEN}"], bars[f"{region} patches, raw"]
        assert to_hex(given[0].get_markerfacecolor()) == to_hex(given[0].get_color())
        assert to_hex(raw[0].get_markerfacecolor()) == "#ffffff"
        assert given[0].get_markersize() > raw[0].get_markersize()
        assert given[2][0].get_linewidth() > raw[2][0].get_linewidth()
        assert given[0].get_alpha() is None
        assert raw[0].get_alpha() < 1


def test_an_undefined_correlation_is_written_not_left_out():
    _, axes = plt.subplots()
    correlation_by_loss(axes, table(undefined=[0, 4]))
    assert [text.get_text() for text in axes.texts] == ["undefined", "undefined"]
    assert np.allclose([text.get_position() for text in axes.texts], [(0, -0.28), (0, 1.16)])
    assert drawn(axes)[f"relevant {GIVEN}"][0] == [-0.2, -0.1]
    _, axes = plt.subplots()
    correlation_by_loss(axes, table(undefined=range(6)))
    assert len(axes.texts) == 6
    assert len(set(axes.get_legend_handles_labels()[1])) == 4


def test_a_panel_for_every_model_and_dataset(tmp_path):
    pairs = [(model, dataset) for dataset in ("vizwiz", "mine") for model in ("one", "two", "three")]
    rows = pd.concat([table(*pair) for pair in pairs], ignore_index=True)
    for i in range(2):
        drawing = draw(rows)
        assert [axes.get_title() for axes in drawing.axes] == [
            f"{model}\non {dataset}\nn: 90 relevant,\n90 irrelevant" for model, dataset in pairs
        ]
        assert drawing.get_supxlabel() == "rank correlation of loss and exact match"
        save(drawing, tmp_path / f"{i}.pdf", tmp_path / f"{i}.png")
    for ending in ("pdf", "png"):
        assert (tmp_path / f"0.{ending}").read_bytes() == (tmp_path / f"1.{ending}").read_bytes()


def draw(rows):
    return figure5.draw(rows, figure5.Settings(threshold=0.5, right=0.5, confidence=0.95), relations=[])


@pytest.mark.parametrize("models", [1, 2, 3, 4, 7])
def test_it_is_as_wide_as_a_page_however_many_models_there_are_and_can_be_read(tmp_path, models):
    drawing = draw(pd.concat([table(f"model-{i}") for i in range(models)], ignore_index=True))
    assert len(drawing.axes) == models
    lowest = drawing.axes[-min(3, models) :]
    assert all(label.get_visible() for panel in lowest for label in panel.get_xticklabels())
    assert drawing.get_figwidth() <= 5.5
    drawing.canvas.draw()
    texts = [text for text in drawing.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 7
    assert drawing.get_tightbbox().width <= 5.6
