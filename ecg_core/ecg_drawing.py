"""An ECG on its grid as on paper: 25 mm a second, 10 mm a millivolt; signals in, a figure out."""

from collections.abc import Collection

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ecg_core.figures import INK, STYLE
from ecg_core.leads import LEADS

MM_A_SECOND, MM_A_MILLIVOLT = 25.0, 10.0
SECONDS_SHOWN = 5.0
"""Of each lead; two columns of 5 s fit across a page."""

_ROW_MM, _MARGIN_MM, _HEAD_MM, _FOOT_MM, _ANSWER_MM = 25.0, 5.0, 15.0, 10.0, 60.0
_FINE, _COARSE = "#f6d5d5", "#e9a3a3"
_INCH_MM = 25.4


def draw_ecg(
    signal_mv: Float[np.ndarray, "lead sample"],
    fs: float,
    recorded: Collection[int],
    title: str,
    answer: str,
) -> Figure:
    """Draw the first seconds of all leads, limb leads left and chest leads right.

    Leads that are not among `recorded` are named and left empty; `answer` stands at the right.
    """
    column = SECONDS_SHOWN * MM_A_SECOND + 2 * _MARGIN_MM
    width = 2 * column + _ANSWER_MM
    height = 6 * _ROW_MM + _HEAD_MM + _FOOT_MM
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width / _INCH_MM, height / _INCH_MM))
        figure.suptitle(title, x=_MARGIN_MM / width, y=1 - 3 / height, ha="left", fontsize=11)
        axes = figure.add_axes((0, 0, 1, 1), frameon=False)
        axes.set(xlim=(0, width), ylim=(0, height), xticks=[], yticks=[])
        axes.grid(visible=False)
        _draw_grid(axes, 2 * column, _FOOT_MM, _FOOT_MM + 6 * _ROW_MM)
        for lead, name in enumerate(LEADS):
            left = _MARGIN_MM + (lead // 6) * column
            middle = _FOOT_MM + (5.5 - lead % 6) * _ROW_MM
            axes.text(left, middle + 8, name, color=INK, fontweight="bold", fontsize=9)
            if lead in recorded:
                shown = signal_mv[lead, : round(SECONDS_SHOWN * fs)]
                seconds = np.arange(len(shown)) / fs
                x, y = left + seconds * MM_A_SECOND, middle + shown * MM_A_MILLIVOLT
                axes.plot(x, y, color=INK, linewidth=0.7)
            else:
                axes.text(left, middle, "not recorded", color=INK, fontsize=8, style="italic")
        words = axes.text(2 * column + 4, height - _HEAD_MM, answer, va="top", color=INK)
        words.set(fontsize=8, family="DejaVu Sans Mono")
        note = f"{MM_A_SECOND:g} mm/s   {MM_A_MILLIVOLT:g} mm/mV   For research, not for diagnosis."
        axes.text(_MARGIN_MM, 3.5, note, fontsize=8, color=INK)
    return figure


def _draw_grid(axes: Axes, width: float, bottom: float, top: float) -> None:
    """Draw lines every millimetre, stronger every five."""
    for colour, step, line in ((_FINE, 1.0, 0.3), (_COARSE, 5.0, 0.5)):
        upright = [[(x, bottom), (x, top)] for x in np.arange(0, width + step / 2, step)]
        level = [[(0, y), (width, y)] for y in np.arange(bottom, top + step / 2, step)]
        axes.add_collection(LineCollection(upright + level, colors=colour, linewidths=line))
