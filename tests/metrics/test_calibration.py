"""Reliability against cases whose answer is known by heart."""

import numpy as np
import pytest

from ecg_core.metrics.calibration import expected_calibration_error, reliability_curve


def test_a_model_that_means_what_it_says_has_no_calibration_error() -> None:
    probabilities = np.full((10, 1), 0.3)
    labels = np.arange(10)[:, None] < 3
    curve = reliability_curve(labels, probabilities, 10)
    assert expected_calibration_error(curve) == pytest.approx(0.0, abs=1e-12)
    assert curve["entries"].tolist() == [0, 0, 0, 10, 0, 0, 0, 0, 0, 0]


def test_certainty_that_is_always_wrong_has_an_error_of_one() -> None:
    labels = np.array([[True], [False]])
    curve = reliability_curve(labels, np.array([[0.0], [1.0]]), 4)
    assert expected_calibration_error(curve) == 1.0
    assert curve["frequency"].iloc[[0, 3]].tolist() == [1.0, 0.0]
    assert np.isnan(curve["frequency"].iloc[1])


def test_error_weighs_bins_by_their_entries() -> None:
    probabilities = np.array([[0.9], [0.9], [0.9], [0.1]])
    labels = np.array([[True], [True], [False], [True]])
    expected = (3 * abs(0.9 - 2 / 3) + 1 * abs(0.1 - 1)) / 4
    curve = reliability_curve(labels, probabilities, 10)
    assert expected_calibration_error(curve) == pytest.approx(expected)


def test_no_entries_give_nan() -> None:
    curve = reliability_curve(np.zeros((0, 26), dtype=bool), np.zeros((0, 26)), 10)
    assert np.isnan(expected_calibration_error(curve))
