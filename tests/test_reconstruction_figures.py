"""Figures of the ladder, the losses and the training show what their tables hold."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lossmap.figures.history import training_history
from lossmap.figures.ladder import FLOOR, best_by_connector, ladder_by_rung
from lossmap.figures.patch_losses import LEAST, loss_boxes
from lossmap.figures.style import NOT_CONVERGED, use_style
from lossmap.reconstruct.specs import LINEAR
from lossmap.study.steps import draw_history, draw_ladder, draw_patch_losses


@pytest.fixture(autouse=True)
def style():
    use_style()
    yield
    plt.close("all")


def ladder_table(model="toy"):
    rows = []
    connectors = (("own", False, 1, 3), ("rotation", True, 0.1, 3), ("identity", True, 0, 2), ("pooling", False, 2, 2))
    for connector, lossless, factor, rungs in connectors:
        for rung, fvu in (("mean", 0.4), ("ridge", 0.2), ("mlp", 0.1))[:rungs]:
            for share in (50, 100):
                value = factor * fvu * (1.2 if share == 50 else 1)
                row = {"model": model, "n": 9, "connector": connector, "kind": connector, "lossless": lossless}
                row |= {"converged": not (connector == "own" and rung == "mlp" and share == 50)}
                row |= {"parameters": {"mlp": 12_300}.get(rung, 0)}
                row |= {"rung": rung, "share": share, "fvu": value, "fvu_low": value - 0.01, "fvu_high": value + 0.01}
                best = rung == ("mlp" if rungs == 3 else "ridge") and share == 100
                rows.append(row | {"best": best, "known_fvu": 0 if lossless else np.nan})
    return pd.DataFrame(rows)


def drawn(axes, label):
    """Line and bars of the errorbar with this label."""
    return next(container for container in axes.containers if container.get_label() == label)


def test_the_ladder_is_a_line_for_the_connector_and_each_lossless_control_with_all_its_rungs():
    _, axes = plt.subplots()
    ladder_by_rung(axes, ladder_table(), LINEAR)
    assert [container.get_label() for container in axes.containers] == ["model's connector", "rotation (lossless)"]
    line, _, (bars,) = drawn(axes, "model's connector")
    assert line.get_ydata().tolist() == [0.4, 0.2, 0.1]
    np.testing.assert_allclose(bars.get_segments()[2], [[2, 0.09], [2, 0.11]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["mean", "ridge", "mlp (12.3k)"]
    other = drawn(axes, "rotation (lossless)")[0]
    assert line.get_linewidth() > other.get_linewidth()
    assert line.get_marker() != other.get_marker()


def test_smaller_shares_are_hollow_and_the_best_is_ringed():
    _, axes = plt.subplots()
    ladder_by_rung(axes, ladder_table(), LINEAR)
    hollow = [line for line in axes.lines if line.get_fillstyle() == "none" and len(line.get_xdata()) == 3]
    np.testing.assert_allclose(hollow[0].get_ydata(), [0.48, 0.24, 0.12])
    rings = [line for line in axes.lines if line.get_fillstyle() == "none" and len(line.get_xdata()) == 1]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in rings] == [(2, 0.1), (2, pytest.approx(0.01))]


def crosses(axes):
    return [(*line.get_xdata(), *line.get_ydata()) for line in axes.lines if line.get_color() == NOT_CONVERGED["color"]]


def test_a_network_that_has_not_converged_is_crossed_out():
    _, (ladder, learning) = plt.subplots(2)
    ladder_by_rung(ladder, ladder_table(), LINEAR)
    assert (2, pytest.approx(0.12)) in crosses(ladder)
    tables = [history(converged=name == "mlp").assign(network=name, share=50) for name in ("mlp", "big")]
    training_history(learning, pd.concat(tables), ["mlp", "big"], [50])
    assert crosses(learning) == [(400, 0.6)]


def test_the_best_of_each_connector_is_told_in_numbers():
    _, axes = plt.subplots()
    best_by_connector(axes, ladder_table())
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [
        "model's connector",
        "rotation\na random rotation",
        "identity\nnothing is changed",
        "pooling\nthe mean of each 2x2 patches",
    ]
    assert [text.get_text() for text in axes.texts] == [
        "0.100, mlp",
        "0.010, mlp",
        "under 0.001, ridge",
        "0.400, ridge",
    ]
    marks = [container[0] for container in axes.containers]
    assert [mark.get_xdata()[0] for mark in marks] == pytest.approx([0.1, 0.01, FLOOR, 0.4])
    assert [mark.get_marker() for mark in marks] == ["o", "s", "s", "D"]
    known = next(line for line in axes.lines if line.get_label() == "linear, by theory")
    np.testing.assert_array_equal(known.get_xdata(), [np.nan, FLOOR, FLOOR, np.nan])


def test_a_box_shows_quartiles_and_mean_of_the_images_of_a_model_and_dataset():
    _, axes = plt.subplots()
    table = pd.DataFrame(
        {
            "dataset": ["one"] * 9 + ["two"] * 5,
            "model": ["a"] * 5 + ["b"] * 4 + ["a"] * 5,
            "squared_error": [0.1, 0.2, 0.3, 0.4, 0.9, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.2, 0.2],
        }
    )
    loss_boxes(axes, table)
    boxes = [box.get_path().get_extents() for box in axes.patches]
    assert [y for box in boxes[:2] for y in (box.y0, box.y1)] == pytest.approx([0.2, 0.4, LEAST, 0.2])
    means = [line for line in axes.lines if line.get_marker() == "o"]
    assert means[0].get_ydata() == pytest.approx([0.38, (3 * LEAST + 0.4) / 5])
    assert means[1].get_ydata()[0] == pytest.approx(0.5)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["one\nn = 5", "two\nn = 5"]
    assert axes.get_legend_handles_labels()[1] == ["a", "b"]


def history(best=2, converged=True):
    held_out = [0.9, 0.5, 0.4, 0.6][: best + 2]
    rows = {"step": range(1, len(held_out) + 1), "images": [100 * i for i in range(1, len(held_out) + 1)]}
    return pd.DataFrame({**rows, "train_loss": 0.5, "held_out_loss": held_out, "converged": converged})


def test_a_history_marks_the_weights_that_were_kept():
    _, axes = plt.subplots()
    table = pd.concat([history().assign(network=name, share=share) for name in ("mlp", "big") for share in (50, 100)])
    training_history(axes, table, ["mlp", "big"], [100, 50])
    marks = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert [line.get_xdata() for line in marks] == [[300]] * 4
    assert [line.get_ydata() for line in marks] == [[0.4]] * 4
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["mlp, 50%", "mlp, 100%", "big, 50%", "big, 100%"]
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines if line.get_label() in labels}
    assert len(looks) == 4


def test_steps_draw_a_panel_for_each_model_and_data_set(tmp_path, monkeypatch):
    shown = {}
    for step in (draw_ladder, draw_patch_losses, draw_history):
        monkeypatch.setattr(step, "save", lambda figure, pdf, png, step=step: shown.update({step: figure}))
    out = {"pdf": tmp_path / "a.pdf", "png": tmp_path / "a.png"}
    pd.concat([ladder_table("one"), ladder_table("two")]).to_csv(tmp_path / "ladder.csv")
    draw_ladder.run(table=tmp_path / "ladder.csv", **out)
    assert [axes.get_title() for axes in shown[draw_ladder].axes] == ["one (n = 9)", "two (n = 9)", "", ""]
    labels = [text.get_text() for text in shown[draw_ladder].legends[0].get_texts()]
    assert labels[:2] == ["model's connector", "rotation (lossless)"]
    assert labels[-3:] == ["fewer training images", "lowest held-out error", "not converged, no evidence"]

    images, histories = [], []
    for model in ("one", "two"):
        for dataset in ("a", "b", "c", "d", "e"):
            images.append(tmp_path / f"patch_loss/{dataset}/{model}.parquet")
            images[-1].parent.mkdir(parents=True, exist_ok=True)
            rows = {"squared_error": [0.2, 9.0, 0.4], "best": [True, False, True]}
            pd.DataFrame(rows).to_parquet(images[-1])
        for connector in ("own", "invertible_mlp"):
            histories.append(tmp_path / f"{model}/{connector}/mlp-small-25.history.csv")
            histories[-1].parent.mkdir(parents=True, exist_ok=True)
            history().to_csv(histories[-1])
    draw_patch_losses.run(images=images, **out)
    [panel] = shown[draw_patch_losses].axes
    assert [label.get_text() for label in panel.get_xticklabels()] == [f"{name}\nn = 2" for name in "abcde"]
    assert panel.get_ylim()[1] < 9  # reconstructors that are not the best are not shown
    labels = [text.get_text() for text in shown[draw_patch_losses].legends[0].get_texts()]
    assert labels == ["one", "two", "mean of the images", "predicting the mean patch"]
    draw_history.run(histories=histories, **out)
    labels = [text.get_text() for text in shown[draw_history].legends[0].get_texts()]
    assert labels == ["mlp-small, 25%", "held-out images (mark: kept)", "training images", "not converged"]
    panels = shown[draw_history].axes
    assert [axes.get_title() for axes in panels] == ["one", "two", "", ""]
    assert [axes.get_ylabel() for axes in panels] == ["model's connector", "", "invertible mlp", ""]
    assert panels[0].get_legend_handles_labels()[1] == ["mlp-small, 25%"]


def test_figures_are_files(tmp_path):
    ladder_table().to_csv(tmp_path / "ladder.csv")
    for name in ("one", "two"):
        draw_ladder.run(table=tmp_path / "ladder.csv", pdf=tmp_path / f"{name}.pdf", png=tmp_path / f"{name}.png")
    for ending in ("pdf", "png"):
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()
