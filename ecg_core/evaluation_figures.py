"""The figures of reports/evaluate: tables of the evaluate stage in, figures out.

They are drawn by the report stage, so that an edit here scores no model again.
"""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from ecg_core.figures import (
    BLUE,
    DOTS,
    INK,
    STYLE,
    VERMILION,
    draw_trivial,
    new_figure,
)

WAYS = {
    "cinc_fixed": "threshold 0.5",
    "cinc_one_tuned": "one, tuned on valid",
    "cinc_class_tuned": "one a class, tuned on valid",
}


def six_scores(evaluate: Mapping[str, Any]) -> Figure:
    """Draw the CinC score by recording and by segment, each with three ways to set thresholds.

    Bars are 95 % intervals; the two scores that need no model are lines. Takes evaluate's metrics.
    """
    units = {"recording": ("recordings", BLUE, "o"), "segment": ("segments", VERMILION, "s")}
    with mpl.rc_context(STYLE):
        figure, panels = new_figure("The CinC 2021 score on test, six ways", 1, 2, height=2.9)
        for axes, (unit, (counted, colour, marker)) in zip(panels, units.items(), strict=True):
            scores, ends = evaluate[unit], evaluate["interval"][unit]
            for place, way in enumerate(WAYS):
                score = scores[way]
                reach = [[score - ends[way]["low"]], [ends[way]["high"] - score]]
                axes.errorbar(score, -place, xerr=reach, color=colour, marker=marker, capsize=4)
                axes.annotate(f"{score:.3f}", (score, -place), (0, 6), ha="center", fontsize=8,
                              textcoords="offset points")  # fmt: skip
            nothing = scores["cinc_of_nothing_predicted"]
            for trivial, name, dash in (
                (nothing, f"nothing predicted: {nothing:.3f}", DOTS),
                (0.0, "sinus for everyone: 0", "--"),
            ):
                axes.vlines(
                    trivial, -2.6, 0.6, color=INK, linewidth=1.0, linestyle=dash, label=name
                )
            axes.legend(loc="lower right", fontsize=8)
            axes.set_ylim(-3.6, 0.6)
            axes.set_yticks([0, -1, -2], [] if axes is panels[1] else list(WAYS.values()))
            axes.set_title(f"by {unit} ({evaluate[counted]})")
            axes.set_xlabel("CinC 2021 [95 % interval]")
            axes.grid(visible=False, axis="y")
    return figure


def per_class_bars(table: pd.DataFrame) -> Figure:
    """Draw each class's AUROC and F-measure on test, with its positives; columns as evaluate's."""
    rows = table[table["positives"] > 0].iloc[::-1].reset_index(drop=True)
    with mpl.rc_context(STYLE):
        figure, (areas, measures) = new_figure(
            "Classes present in test", 1, 2, height=1.2 + 0.24 * len(rows)
        )
        for axes, column, name, colour in (
            (areas, "auroc", "AUROC", BLUE),
            (measures, "f_measure", "F-measure at 0.5", VERMILION),
        ):
            axes.barh(rows.index, rows[column].fillna(0.0), color=colour, height=0.7)
            axes.set_xlabel(name)
            axes.set_xlim(0, 1)
            axes.set_yticks(list(rows.index), [] if axes is measures else _class_names(rows))
            axes.grid(visible=False, axis="y")
        areas.axvline(0.5, color=INK, linewidth=1.0, linestyle=DOTS)
    return figure


def lead_set_bars(table: pd.DataFrame, nothing: float) -> Figure:
    """Draw the CinC score by number of leads with its 95 % interval; columns as evaluate's."""
    rows = table.sort_values("leads", ascending=False).reset_index(drop=True)
    score = rows["cinc_fixed"]
    reach = [score - rows["cinc_fixed_low"], rows["cinc_fixed_high"] - score]
    with mpl.rc_context(STYLE):
        figure, (axes,) = new_figure("Lead sets of one 12-lead model", 1, 1, height=3.4)
        axes.errorbar(rows.index, score, reach, color=BLUE, marker="o", ls="", capsize=4)
        draw_trivial(axes, nothing)
        axes.set_xticks(list(rows.index), [str(leads) for leads in rows["leads"]])
        axes.set_xlabel("leads given, the others zero")
        axes.set_ylabel("CinC 2021, test")
    return figure


def reliability(curve: pd.DataFrame) -> Figure:
    """Draw how often a class was there against the probability given for it, bin by bin."""
    rows = curve[curve["entries"] > 0]
    with mpl.rc_context(STYLE):
        figure, (axes,) = new_figure("Calibration on test", 1, 1, height=3.8)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1.0, linestyle=DOTS)
        axes.plot(rows["mean_probability"], rows["frequency"], color=BLUE, marker="o")
        for said, came, entries in rows[["mean_probability", "frequency", "entries"]].to_numpy():
            axes.annotate(f"{entries:.0f}", (said, came), (4, -11), textcoords="offset points")
        axes.set_xlabel("mean probability given (number: label entries in the bin)")
        axes.set_ylabel("frequency of the class")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
    return figure


def _class_names(rows: pd.DataFrame) -> list[str]:
    pairs = zip(rows["abbreviation"], rows["positives"], strict=True)
    return [f"{name} ({count})" for name, count in pairs]
