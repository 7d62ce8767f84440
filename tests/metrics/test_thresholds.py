"""Thresholds against a search that scores every candidate by itself."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ecg_core.classes import SINUS_CLASS
from ecg_core.metrics.cinc import cinc_score, decide, load_weights
from ecg_core.metrics.thresholds import (
    candidate_thresholds,
    one_threshold,
    thresholds_per_class,
)

WEIGHTS = load_weights()


def informed_set(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that know something of the labels, on a coarse grid so that ties are common."""
    generator = np.random.default_rng(seed)
    labels = generator.random((rows, 26)) < 0.08
    labels[:, 20:] = False
    noise = generator.random((rows, 26))
    return labels, np.round(0.6 * noise + 0.35 * labels * generator.random((rows, 26)), 2)


def nearest_best(scores: list[float], candidates: np.ndarray) -> float:
    best = [t for t, s in zip(candidates, scores, strict=True) if s >= max(scores) - 1e-11]
    return float(min(best, key=lambda t: (round(abs(t - 0.5), 12), t)))


@given(rows=st.integers(1, 30), seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_one_threshold_is_the_best_of_all_tried_one_by_one(rows: int, seed: int) -> None:
    labels, probabilities = informed_set(rows, seed)
    candidates = candidate_thresholds(0.02, 0.5)
    scores = [cinc_score(labels, decide(probabilities, float(t)), WEIGHTS) for t in candidates]
    found = one_threshold(labels, probabilities, WEIGHTS, 0.5, 0.02)
    assert found == nearest_best(scores, candidates)


@given(rows=st.integers(1, 15), seed=st.integers(0, 10**6))
@settings(max_examples=6, deadline=None, phases=[Phase.generate])
def test_thresholds_per_class_are_coordinate_ascent(rows: int, seed: int) -> None:
    labels, probabilities = informed_set(rows, seed)
    candidates = candidate_thresholds(0.1, 0.5)
    thresholds = np.full(26, 0.5)
    before = None
    while before is None or not np.array_equal(before, thresholds):
        before = thresholds.copy()
        for k in np.flatnonzero(labels.any(axis=0)):
            scores = []
            for candidate in candidates:
                thresholds[k] = candidate
                scores.append(cinc_score(labels, decide(probabilities, thresholds), WEIGHTS))
            thresholds[k] = nearest_best(scores, candidates)
    found = thresholds_per_class(labels, probabilities, WEIGHTS, 0.5, 0.1)
    assert found.tolist() == thresholds.tolist()


def test_a_tuned_threshold_never_scores_less_on_valid_than_one_half() -> None:
    labels, probabilities = informed_set(200, 5)
    half = cinc_score(labels, decide(probabilities, 0.5), WEIGHTS)
    one = one_threshold(labels, probabilities, WEIGHTS, 0.5, 0.001)
    each = thresholds_per_class(labels, probabilities, WEIGHTS, 0.5, 0.001)
    assert cinc_score(labels, decide(probabilities, one), WEIGHTS) >= half
    assert cinc_score(labels, decide(probabilities, each), WEIGHTS) > half


def test_classes_absent_from_valid_stay_at_one_half() -> None:
    labels, probabilities = informed_set(200, 6)
    each = thresholds_per_class(labels, probabilities, WEIGHTS, 0.5, 0.01)
    assert each[20:].tolist() == [0.5] * 6
    assert (each[:20] != 0.5).any()


def test_thresholds_stay_at_one_half_where_no_prediction_can_change_the_score() -> None:
    sinus = np.zeros((4, 26), dtype=bool)
    sinus[:, SINUS_CLASS] = True
    for labels in (sinus, np.zeros((4, 26), dtype=bool), np.zeros((0, 26), dtype=bool)):
        probabilities = np.full(labels.shape, 0.3)
        assert one_threshold(labels, probabilities, WEIGHTS, 0.5, 0.01) == 0.5
        assert (thresholds_per_class(labels, probabilities, WEIGHTS, 0.5, 0.01) == 0.5).all()


def test_ties_go_to_the_candidate_nearest_one_half() -> None:
    labels = np.zeros((2, 26), dtype=bool)
    labels[0, 0] = labels[1, SINUS_CLASS] = True
    probabilities = np.zeros((2, 26))
    probabilities[0, 0], probabilities[1, SINUS_CLASS] = 0.9, 0.3
    each = thresholds_per_class(labels, probabilities, WEIGHTS, 0.5, 0.01)
    assert each[0] == 0.5
    assert each[SINUS_CLASS] == pytest.approx(0.29)


def test_order_of_rows_changes_no_threshold() -> None:
    labels, probabilities = informed_set(120, 7)
    order = np.random.default_rng(8).permutation(120)
    for tune in (one_threshold, thresholds_per_class):
        once = tune(labels, probabilities, WEIGHTS, 0.5, 0.001)
        again = tune(labels[order], probabilities[order], WEIGHTS, 0.5, 0.001)
        assert np.array_equal(once, again)
