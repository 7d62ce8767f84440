"""The paper's scale, measured in the figure."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from ecg_core.ecg_drawing import draw_ecg
from ecg_core.figures import figure_bytes


def figure_of(recorded: tuple[int, ...]) -> Figure:
    signal = np.zeros((12, 5000))
    signal[:, 500] = 1.0
    return draw_ecg(signal, 500.0, recorded, "record", "* NSR 0.9")


def test_a_second_is_25_mm_and_a_millivolt_10_mm_on_paper() -> None:
    figure = figure_of((0, 6))
    (axes,) = figure.axes
    assert axes.get_xlim()[1] == pytest.approx(figure.get_size_inches()[0] * 25.4)
    assert axes.get_ylim()[1] == pytest.approx(figure.get_size_inches()[1] * 25.4)
    x, y = axes.lines[0].get_data()
    assert x[500] - x[0] == pytest.approx(25.0)
    assert y.max() - y.min() == pytest.approx(10.0)
    assert len(x) == 2500


def test_leads_that_are_missing_are_named_and_left_empty() -> None:
    (axes,) = figure_of((0, 6)).axes
    texts = [text.get_text() for text in axes.texts]
    assert len(axes.lines) == 2
    assert texts.count("not recorded") == 10
    assert {"I", "aVF", "V6"} <= set(texts)
    assert any("not for diagnosis" in text for text in texts)


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_same_ecg_gives_the_same_bytes(kind: str) -> None:
    assert figure_bytes(figure_of((0,)), kind) == figure_bytes(figure_of((0,)), kind)
