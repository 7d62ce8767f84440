"""Figures show the numbers they are given, in the same bytes every time, and nothing of today."""

import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from ecg_core import evaluation_figures, figures
from tests.report_example import (
    NOTHING,
    evaluate_metrics,
    evaluate_tables,
    finetune_history,
    pretrain_history,
)


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_the_same_history_gives_the_same_bytes_without_a_date_or_a_version(kind: str) -> None:
    first, second = (
        figures.figure_bytes(figures.pretraining_loss(pretrain_history(5)), kind) for _ in range(2)
    )
    assert first == second
    for word in (b"Matplotlib", b"matplotlib v", b"Software", b"CreationDate", b"<dc:date>"):
        assert word not in first


def test_a_drawing_is_well_formed_and_its_text_is_text() -> None:
    drawing = figures.figure_bytes(figures.cinc_by_epoch(finetune_history(5), NOTHING, 24), "svg")
    texts = {(element.text or "").strip() for element in ET.fromstring(drawing).iter()}
    assert {
        "epoch",
        "CinC 2021 (24 test recordings)",
        "sinus for everyone: 0",
        "nothing predicted: -1.105",
        "test, by recording",
    } <= texts


def test_the_reports_plots_draw_the_histories_as_they_are() -> None:
    pretrain, finetune = pretrain_history(7), finetune_history(6)
    (loss,) = figures.pretraining_loss(pretrain).axes[0].get_lines()
    np.testing.assert_array_equal(loss.get_xdata(), range(1, 8))
    np.testing.assert_array_equal(loss.get_ydata(), pretrain["loss"])
    left, right = figures.finetuning_loss(finetune).axes
    drawn = {str(line.get_label()): line.get_ydata() for line in left.get_lines()}
    np.testing.assert_array_equal(drawn["train"], finetune["train_loss_per_positive"])
    np.testing.assert_array_equal(drawn["test"], finetune["test_loss_per_positive"])
    assert left.get_ylabel() == "loss (bits a positive label)"
    assert right.get_ylabel() == "loss (bits a label entry)"
    cinc = figures.cinc_by_epoch(finetune, NOTHING, 24).axes[0].get_lines()[0]
    np.testing.assert_array_equal(cinc.get_ydata(), finetune["test_cinc_recording"])


def test_the_four_terms_add_up_to_what_the_first_plot_shows() -> None:
    history = pretrain_history(4)
    panels = figures.loss_terms(history).axes
    assert len(panels) == 4
    names = [panel.get_title(loc="left") for panel in panels]
    assert names[0].startswith("InfoNCE")
    assert names[1].startswith("CMSC")


def test_six_scores_stand_with_their_intervals_beside_the_two_trivial_ones() -> None:
    metrics = evaluate_metrics()
    metrics["recording"] = {**metrics["recording"], "cinc_one_tuned": 0.4321}
    metrics["interval"]["recording"]["cinc_one_tuned"] = {"low": 0.3, "high": 0.6}
    panels = evaluation_figures.six_scores(metrics).axes
    assert [len(panel.containers) for panel in panels] == [3, 3]
    _, _, (bar,) = panels[0].containers[1]
    assert bar.get_segments()[0][:, 0].tolist() == pytest.approx([0.3, 0.6])
    assert "0.432" in [text.get_text() for text in panels[0].texts]
    for panel in panels:
        at = [
            line.get_segments()[0][0, 0] for line in panel.collections if line.get_label()[0] != "_"
        ]
        assert at == [NOTHING, 0.0]


def test_classes_that_test_does_not_have_get_no_bar() -> None:
    classes = evaluate_tables()["per_class"].query("unit == 'recording'")
    axes = evaluation_figures.per_class_bars(classes).axes[0]
    assert len(axes.patches) == int((classes["positives"] > 0).sum())
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[-1] == "AFL (1)"


def test_undefined_scores_and_empty_bins_are_drawn_as_nothing() -> None:
    curve = pd.DataFrame(
        {"entries": [3, 0], "mean_probability": [0.1, np.nan], "frequency": [0.2, np.nan]}
    )
    for kind in ("svg", "png"):
        assert figures.figure_bytes(evaluation_figures.reliability(curve), kind)
    leads = evaluate_tables()["leads"].query("unit == 'recording'")
    undefined = leads.assign(cinc_fixed=np.nan, cinc_fixed_low=np.nan, cinc_fixed_high=np.nan)
    assert figures.figure_bytes(evaluation_figures.lead_set_bars(undefined, NOTHING), "svg")


def test_colours_stay_apart_for_people_without_red_or_green_cones() -> None:
    # Viénot, Brettel and Mollon (1999): what a dichromat sees, in linear RGB
    without_red = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.004, -0.004, 1]])
    without_green = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.022, 0.022, 1]])
    colours = [figures.BLUE, figures.VERMILION, figures.GREEN, figures.PURPLE, figures.ORANGE]
    linear = np.array([to_rgb(colour) for colour in colours]) ** 2.2
    for matrix in (np.eye(3), without_red, without_green):
        seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2)
        apart = [np.abs(a - b).sum() for i, a in enumerate(seen) for b in seen[i + 1 :]]
        assert min(apart) > 0.15
    assert all(a != b for a, b in pairwise(colours))


def test_experiments_are_overlaid_under_their_names() -> None:
    histories = {"demo": pretrain_history(5), "longer": pretrain_history(9)}
    axes = figures.overlaid(histories, "loss", "Pretraining loss", "bits a target").axes[0]
    assert [line.get_label() for line in axes.get_lines()] == ["demo", "longer"]
    assert [len(np.asarray(line.get_xdata())) for line in axes.get_lines()] == [5, 9]
