"""Figures of the ladder, the losses and the training show what their tables hold."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from specs import PLAIN_FIGURES

from lossmap.figures.history import training_history
from lossmap.figures.ladder import FLOOR, best_by_connector, ladder_by_decoder
from lossmap.figures.patch_losses import LEAST, loss_boxes
from lossmap.figures.style import NOT_CONVERGED, use_style
from lossmap.reconstruct.specs import LINEAR
from lossmap.study.exhibits import history as history_exhibit
from lossmap.study.exhibits import ladder as ladder_exhibit
from lossmap.study.exhibits import patch_losses
from lossmap.study.steps import make_exhibit

LADDER = ladder_exhibit.Settings(confidence=0.95)


@pytest.fixture(autouse=True)
def style():
    use_style()
    yield
    plt.close("all")


def ladder_table(model="toy"):
    rows = []
    connectors = (("own", False, 1, 3), ("rotation", True, 0.1, 3), ("identity", True, 0, 2), ("pooling", False, 2, 2))
    for connector, lossless, factor, decoders in connectors:
        for decoder, fvu in (("mean", 0.4), ("ridge", 0.2), ("mlp", 0.1))[:decoders]:
            for share in (50, 100):
                value = factor * fvu * (1.2 if share == 50 else 1)
                row = {"model": model, "n": 9, "connector": connector, "connector_kind": connector}
                row["lossless"] = lossless
                row |= {"converged": not (connector == "own" and decoder == "mlp" and share == 50)}
                row |= {"parameters": {"mlp": 12_300}.get(decoder, 0)}
                row |= {
                    "decoder": decoder,
                    "training_share": share / 100,
                    "fvu": value,
                    "fvu_low": value - 0.01,
                    "fvu_high": value + 0.01,
                }
                best = decoder == ("mlp" if decoders == 3 else "ridge") and share == 100
                rows.append(row | {"best": best, "known_fvu": 0 if lossless else np.nan})
    return pd.DataFrame(rows)


def drawn(axes, label):
    """Line and bars of the errorbar with this label."""
    return next(container for container in axes.containers if container.get_label() == label)


def test_the_ladder_is_a_line_for_the_connector_and_each_lossless_control_with_all_its_decoders():
    _, axes = plt.subplots()
    ladder_by_decoder(axes, ladder_table(), LINEAR)
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
    ladder_by_decoder(axes, ladder_table(), LINEAR)
    hollow = [line for line in axes.lines if line.get_fillstyle() == "none" and len(line.get_xdata()) == 3]
    np.testing.assert_allclose(hollow[0].get_ydata(), [0.48, 0.24, 0.12])
    rings = [line for line in axes.lines if line.get_fillstyle() == "none" and len(line.get_xdata()) == 1]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in rings] == [(2, 0.1), (2, pytest.approx(0.01))]


def crosses(axes):
    return [(*line.get_xdata(), *line.get_ydata()) for line in axes.lines if line.get_color() == NOT_CONVERGED["color"]]


def test_a_network_that_has_not_converged_is_crossed_out():
    _, (ladder, learning) = plt.subplots(2)
    ladder_by_decoder(ladder, ladder_table(), LINEAR)
    assert (2, pytest.approx(0.12)) in crosses(ladder)
    tables = [learned(name, 0.5, converged=name == "mlp") for name in ("mlp", "big")]
    training_history(learning, pd.concat(tables), ["mlp", "big"], [0.5])
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
        "0.100\nmlp",
        "0.010\nmlp",
        "under 0.001\nridge",
        "0.400\nridge",
    ]
    marks = [container[0] for container in axes.containers]
    assert [mark.get_xdata()[0] for mark in marks] == pytest.approx([0.1, 0.01, FLOOR, 0.4])
    assert [mark.get_marker() for mark in marks] == ["o", "s", "s", "D"]
    known = next(line for line in axes.lines if line.get_label() == "linear, by theory")
    np.testing.assert_array_equal(known.get_xdata(), [np.nan, FLOOR, FLOOR, np.nan])


def losses(folder, values):
    """Tables of measure_patch_loss. values: (dataset, model) -> losses of the images by the best decoder."""
    for (dataset, model), errors in values.items():
        path = folder / f"patch_loss/{dataset}/{model}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {"reconstructor": "mlp", "squared_error": [*errors, 9.0], "best": [True] * len(errors) + [False]}
        pd.DataFrame(rows).to_parquet(path)
        yield path


def test_a_box_shows_quartiles_and_mean_of_the_images_of_a_model_and_dataset(tmp_path):
    values = {
        ("one", "a"): [0.1, 0.2, 0.3, 0.4, 0.9],
        ("one", "b"): [0.5, 0.5, 0.5, 0.5],
        ("two", "a"): [0.0, 0.0, 0.0, 0.2, 0.2],
    }
    table = patch_losses.table(patch_losses.Settings(), list(losses(tmp_path, values)))
    names = ["n", "loss", "loss_percentile_5", "loss_lower_quartile", "loss_median", "loss_upper_quartile"]
    assert table.loc[0, [*names, "loss_percentile_95"]].tolist() == pytest.approx([5, 0.38, 0.12, 0.2, 0.3, 0.4, 0.8])
    assert table["decoder"].unique().tolist() == ["mlp"]
    _, axes = plt.subplots()
    loss_boxes(axes, table)
    boxes = [box.get_path().get_extents() for box in axes.patches]
    assert [y for box in boxes[:2] for y in (box.y0, box.y1)] == pytest.approx([0.2, 0.4, LEAST, 0.2])
    means = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert means == pytest.approx([0.38, 0.08, 0.5])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["one\nn = 5", "two\nn = 5"]
    assert axes.get_legend_handles_labels()[1] == ["a", "b"]
    assert patch_losses.findings(table, patch_losses.Settings())[0] == (
        "- **a**: the middle half of the images have losses of 0.200 to 0.400 on one (median 0.300, 95% at most 0.800)"
        ", 0.000 to 0.200 on two (median 0.000, 95% at most 0.200)."
    )


def history(best=2, converged=True):
    held_out = [0.9, 0.5, 0.4, 0.6][: best + 2]
    rows = {"step": range(1, len(held_out) + 1), "images": [100 * i for i in range(1, len(held_out) + 1)]}
    return pd.DataFrame({**rows, "train_loss": 0.5, "held_out_loss": held_out, "converged": converged})


def learned(network, share, **how):
    """The history of one network, as the exhibit's table has it."""
    return history(**how).rename(columns=history_exhibit.NAMES).assign(decoder=network, training_share=share)


def test_a_history_marks_the_weights_that_were_kept():
    _, axes = plt.subplots()
    table = pd.concat([learned(name, share) for name in ("mlp", "big") for share in (0.5, 1)])
    training_history(axes, table, ["mlp", "big"], [1, 0.5])
    marks = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert [line.get_xdata() for line in marks] == [[300]] * 4
    assert [line.get_ydata() for line in marks] == [[0.4]] * 4
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["mlp, 50%", "mlp, 100%", "big, 50%", "big, 100%"]
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines if line.get_label() in labels}
    assert len(looks) == 4


def test_the_ladder_has_a_column_of_panels_for_each_model(tmp_path):
    pd.concat([ladder_table("one"), ladder_table("two")]).to_parquet(tmp_path / "ladder.parquet")
    table = ladder_exhibit.table(LADDER, [tmp_path / "ladder.parquet"])
    figure = ladder_exhibit.draw(table, LADDER, [])
    assert [axes.get_title() for axes in figure.axes] == ["one\nn = 9", "two\nn = 9", "", ""]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["model's connector", "rotation (lossless)"]
    assert labels[-3:] == ["fewer training images", "lowest held-out error", "not converged, no evidence"]


def test_the_ladders_page_begins_with_the_models_own_connector():
    tables = [ladder_table(name).sort_values("connector", kind="stable") for name in ("two", "one")]
    page = ladder_exhibit.page(pd.concat(tables, ignore_index=True), LADDER)
    first = page.drop_duplicates(["model", "connector"])
    assert first["model"].tolist() == ["two"] * 4 + ["one"] * 4
    assert first["connector"].tolist() == ["model's connector", "identity", "pooling", "rotation"] * 2
    assert page.loc[page["best"] == "best", "FVU"].tolist()[:2] == ["0.100 [0.090, 0.110]", "0.000 [-0.010, 0.010]"]


def test_the_ladder_says_what_the_best_decoder_leaves_and_what_is_no_evidence():
    assert ladder_exhibit.findings(ladder_table(), ladder_exhibit.Settings(confidence=0.9)) == [
        "- **toy**: the best decoder, mlp, leaves 0.100 [0.090, 0.110] of the variance; of lossless controls 0.010 "
        "(rotation), 0.000 (identity). 1 network has not converged, no evidence.",
        "",
        "In brackets: 90% bootstrap interval over images.",
    ]


def test_losses_of_each_dataset_stand_side_by_side(tmp_path):
    paths = list(losses(tmp_path, {(dataset, model): [0.2, 0.4] for dataset in "abcde" for model in ("one", "two")}))
    figure = patch_losses.draw(patch_losses.table(patch_losses.Settings(), paths), patch_losses.Settings(), paths)
    [panel] = figure.axes
    assert [label.get_text() for label in panel.get_xticklabels()] == [f"{name}\nn = 2" for name in "abcde"]
    assert panel.get_ylim()[1] < 9  # decoders that are not the best are not shown
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["one", "two", "mean of the images", "predicting the mean patch"]


def test_the_history_has_a_panel_for_each_model_and_connector(tmp_path):
    paths = []
    for model in ("one", "two"):
        for connector in ("own", "invertible_mlp"):
            paths.append(tmp_path / f"{model}/{connector}/mlp-small-25.history.csv")
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
            history(converged=(model, connector) != ("two", "own")).to_csv(paths[-1], index=False)
    settings = history_exhibit.Settings()
    table = history_exhibit.table(settings, paths)
    columns = ["model", "connector", "decoder", "training_share", "images_seen", "held_out_error"]
    assert table.loc[0, columns].tolist() == ["one", "own", "mlp-small", 0.25, 100, 0.9]
    assert history_exhibit.findings(table, settings) == [
        "- **one**: 2 of 2 networks have converged.",
        "- **two**: 1 of 2 networks have converged; not mlp-small at 25% of the images, on the connector.",
    ]
    figure = history_exhibit.draw(table, settings, paths)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["mlp-small, 25%", "held-out images (mark: used)", "training images", "not converged"]
    assert [axes.get_title() for axes in figure.axes] == ["one", "two", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["model's connector", "", "invertible mlp", ""]
    assert figure.axes[0].get_legend_handles_labels()[1] == ["mlp-small, 25%"]


def test_figures_are_files(tmp_path):
    ladder_table().to_parquet(tmp_path / "ladder.parquet")
    inputs = [f"ladder={tmp_path / 'ladder.parquet'}"]
    for name in ("one", "two"):
        make_exhibit.run(
            "ladder", results=tmp_path / name, inputs=inputs, settings=LADDER.model_dump(), spec=PLAIN_FIGURES
        )
    for ending in ("pdf", "png"):
        first, second = (tmp_path / f"{name}/figures/ladder.{ending}" for name in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()
