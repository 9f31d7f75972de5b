"""Ticks of logarithmic axes, and marks that tell many models apart."""

import matplotlib.pyplot as plt
import pytest

from lossmap.figures.style import COLOURS, MARKERS, log_ticks, use_style


@pytest.mark.parametrize("low", [0.03, 0.07, 0.3])
@pytest.mark.parametrize("times", [1.3, 3, 7, 40, 500])
def test_an_axis_of_any_length_has_some_ticks_in_view_and_not_too_many(low, times):
    use_style()
    figure, axes = plt.subplots()
    axes.set(yscale="log", ylim=(low, low * times))
    log_ticks(axes.yaxis)
    figure.draw_without_rendering()
    shown = [tick for tick in axes.get_yticks() if low <= tick <= low * times]
    assert 2 <= len(shown) <= 7
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert all(float(name) > 0 for name in names if name)
    plt.close(figure)


def test_a_dozen_models_look_different():
    looks = {(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i in range(40)}
    assert len(looks) == 40
    assert len(set(MARKERS)) == len(MARKERS) > 12
