"""Data frames in, figures out; reads and writes no file. evaluation_figures.py has the rest.

The same frames give the same bytes: no date, no version, no random ids. Colours are Okabe and Ito's
(2008), safe for the colour-blind; lines differ in dash or marker too, for print in grey.
"""

import io
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK = "#1f2328"
"""The colour of text and axes, which the page replaces by its own in the dark."""
BLUE, VERMILION, GREEN, PURPLE, ORANGE = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"
GREY = "#8a8f98"
DOTS = (0, (1, 2))

STYLE: dict[Any, Any] = {  # matplotlib types the keys by name
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same metrics everywhere
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.0,
    "axes.grid": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "axes.formatter.useoffset": False,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "path.simplify": False,
}
# what matplotlib would write of itself and of today
NO_METADATA = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Return the figure as a svg, png (white, 150 dpi) or pdf file."""
    buffer = io.BytesIO()
    png = kind == "png"
    with mpl.rc_context({**STYLE, "svg.hashsalt": figure.get_suptitle()}):
        figure.savefig(
            buffer, format=kind, metadata=NO_METADATA[kind], transparent=not png, dpi=150
        )
    return buffer.getvalue()


def pretraining_loss(history: pd.DataFrame) -> Figure:
    """Draw the report's plot: epoch against the total pretraining loss, with the accuracy below."""
    with mpl.rc_context(STYLE):
        figure, (loss, accuracy) = new_figure("Pretraining: epoch vs loss", 2, 1, height=5.0)
        _curve(loss, history, "loss", BLUE)
        loss.set_ylabel("loss (bits a target)")
        _curve(accuracy, history, "accuracy", VERMILION, "--")
        accuracy.set_ylabel("InfoNCE accuracy")
        accuracy.set_ylim(bottom=0)
    return figure


def loss_terms(history: pd.DataFrame) -> Figure:
    """Draw the four terms of the pretraining loss, each on its own scale (bits a target)."""
    terms = [
        ("loss_infonce", "InfoNCE (local)", BLUE),
        ("loss_cmsc", "CMSC (global)", VERMILION),
        ("loss_diversity", "codebook diversity, weighted", GREEN),
        ("loss_penalty", "feature penalty, weighted", PURPLE),
    ]
    with mpl.rc_context(STYLE):
        figure, panels = new_figure("The four terms of the pretraining loss", 2, 2, height=5.0)
        for axes, (column, name, colour) in zip(panels, terms, strict=True):
            _curve(axes, history, column, colour)
            axes.set_title(name)
            axes.set_ylabel("bits a target")
    return figure


def schedules(history: pd.DataFrame) -> Figure:
    """Draw what goes with the pretraining loss: perplexities, temperature, rate, gradient norm."""
    panels = [
        ("perplexity of both codebooks", ("prob_perplexity", "code_perplexity")),
        ("Gumbel temperature", ("temp",)),
        ("learning rate", ("lr",)),
        ("gradient norm", ("gnorm",)),
    ]
    with mpl.rc_context(STYLE):
        figure, axes_of = new_figure("Pretraining: codebooks and schedules", 2, 2, height=5.0)
        for axes, (name, columns) in zip(axes_of, panels, strict=True):
            for column, colour, dash in zip(columns, (BLUE, VERMILION), ("-", "--"), strict=False):
                _curve(axes, history, column, colour, dash)
            axes.set_title(name)
        axes_of[0].legend()
    return figure


def finetuning_loss(history: pd.DataFrame) -> Figure:
    """Draw the report's plot: finetuning's train and test loss against the epoch.

    Left in bits a positive label, which is the report's normalisation; right in bits a label entry,
    which is the public code's since 2024-08.
    """
    panels = [("_loss_per_positive", "bits a positive label"), ("_loss", "bits a label entry")]
    parts = [("train", BLUE, "-"), ("valid", GREY, ":"), ("test", VERMILION, "--")]
    with mpl.rc_context(STYLE):
        figure, axes_of = new_figure("Finetuning: train and test loss vs epoch", 1, 2, height=3.4)
        for axes, (suffix, unit) in zip(axes_of, panels, strict=True):
            for part, colour, dash in parts:
                _curve(axes, history, part + suffix, colour, dash, part)
            axes.set_ylabel(f"loss ({unit})")
        axes_of[0].legend()
    return figure


def cinc_by_epoch(history: pd.DataFrame, nothing: float, recordings: int) -> Figure:
    """Draw the report's plot: the CinC 2021 score at the 0.5 threshold against the epoch.

    `nothing` is the score of a model that predicts nothing; sinus for everyone has 0 always.
    """
    lines = [
        ("test_cinc_recording", "test, by recording", VERMILION, "-"),
        ("test_cinc_segment", "test, by 5-s segment", ORANGE, "--"),
        ("valid_cinc_recording", "valid, by recording", BLUE, ":"),
    ]
    with mpl.rc_context(STYLE):
        figure, (axes,) = new_figure("Finetuning: CinC 2021 score vs epoch", 1, 1, height=3.8)
        for column, name, colour, dash in lines:
            _curve(axes, history, column, colour, dash, name)
        draw_trivial(axes, nothing)
        axes.set_ylabel(f"CinC 2021 ({recordings} test recordings)")
        axes.legend()
    return figure


def overlaid(histories: Mapping[str, pd.DataFrame], column: str, title: str, unit: str) -> Figure:
    """Draw one column of several experiments' histories against the epoch."""
    colours = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY)
    dashes = ("-", "--", "-.", ":")
    with mpl.rc_context(STYLE):
        figure, (axes,) = new_figure(title, 1, 1, height=3.8)
        for place, (name, history) in enumerate(histories.items()):
            colour, dash = colours[place % 6], dashes[place % 4]
            _curve(axes, history, column, colour, dash, name)
        axes.set_ylabel(unit)
        axes.legend()
    return figure


def new_figure(title: str, rows: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a titled figure, 7.2 inches wide, and its axes row by row."""
    figure = Figure(figsize=(7.2, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def _curve(
    axes: Axes,
    history: pd.DataFrame,
    column: str,
    colour: str,
    dash: str = "-",
    name: str | None = None,
) -> None:
    """Draw a column against the epoch; a single epoch as a point."""
    (line,) = axes.plot(history["epoch"], history[column], dash, color=colour, label=name or column)
    line.set_marker("o" if len(history) == 1 else "")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_trivial(axes: Axes, nothing: float) -> None:
    """Draw the scores of the two answers that need no model, each with its name over its line."""
    names = {0.0: "sinus for everyone: 0", nothing: f"nothing predicted: {nothing:.3f}"}
    for score, name in names.items():
        axes.axhline(score, color=INK, linewidth=1.0, linestyle=DOTS)
        axes.text(1, score, name, transform=axes.get_yaxis_transform(), ha="right", va="bottom")
