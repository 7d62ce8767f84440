"""The score against the official scorer's numbers, its definition in loops, and its laws."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_core.classes import CLASSES, SINUS_CLASS
from ecg_core.metrics.cinc import (
    absent_classes,
    cinc_score,
    cinc_sums,
    decide,
    load_weights,
    mean_by_recording,
    row_sums,
    score_of_sums,
    trivial_scores,
)

GOLDEN = Path(__file__).parents[1] / "golden"
OFFICIAL = json.loads((GOLDEN / "c5_cinc.json").read_text())
WEIGHTS = load_weights()


def golden_set(name: str) -> tuple[np.ndarray, np.ndarray]:
    arrays = np.load(GOLDEN / "c5_cinc.npz")
    logits = arrays[f"{name}/logits"].astype(np.float64)
    return arrays[f"{name}/labels"], 1 / (1 + np.exp(-logits))


def random_set(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.random((rows, 26)) < 0.1, generator.random((rows, 26)) < 0.15


def score_in_loops(labels: np.ndarray, decisions: np.ndarray) -> float:
    """The definition, pair by pair."""
    sinus = np.zeros_like(labels)
    sinus[:, SINUS_CLASS] = True

    def total(outputs: np.ndarray) -> float:
        result = 0.0
        for truth, output in zip(labels, outputs, strict=True):
            norm = max(1, int((truth | output).sum()))
            for true in range(26):
                for predicted in range(26):
                    if truth[true] and output[predicted]:
                        result += WEIGHTS[true, predicted] / norm
        return result

    observed, correct, inactive = total(decisions), total(labels), total(sinus)
    return (observed - inactive) / (correct - inactive) if correct != inactive else 0.0


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_score_and_its_sums_equal_the_official_scorer(name: str) -> None:
    labels, probabilities = golden_set(name)
    decisions = decide(probabilities, 0.5)
    expected = OFFICIAL[name]
    score = cinc_score(labels, decisions, WEIGHTS)
    assert score == pytest.approx(expected["official"]["challenge_metric"], abs=1e-12)
    sums = [expected["fairseq_single_batch"][f"{part}_score"] for part in "oci"]
    assert list(cinc_sums(labels, decisions, WEIGHTS)) == pytest.approx(sums, abs=1e-12, rel=1e-13)


def test_weights_and_classes_are_those_of_the_golden_file() -> None:
    arrays = np.load(GOLDEN / "c5_cinc.npz")
    assert np.array_equal(arrays["weights"], WEIGHTS)
    assert len(arrays["classes"]) == len(CLASSES) == 26


@given(rows=st.integers(1, 12), seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_score_equals_its_definition_in_loops(rows: int, seed: int) -> None:
    labels, decisions = random_set(rows, seed)
    expected = score_in_loops(labels, decisions)
    assert cinc_score(labels, decisions, WEIGHTS) == pytest.approx(expected, abs=1e-10)


def test_perfect_is_one_and_sinus_for_everyone_is_zero() -> None:
    labels, _ = random_set(50, 1)
    sinus = np.zeros_like(labels)
    sinus[:, SINUS_CLASS] = True
    assert cinc_score(labels, labels, WEIGHTS) == pytest.approx(1.0, abs=1e-12)
    assert cinc_score(labels, sinus, WEIGHTS) == 0.0


def test_perfect_is_zero_when_every_label_is_sinus() -> None:
    sinus = np.zeros((7, 26), dtype=bool)
    sinus[:, SINUS_CLASS] = True
    assert cinc_score(sinus, sinus, WEIGHTS) == 0.0
    assert trivial_scores(sinus, WEIGHTS) == (0.0, 0.0)


def test_predicting_nothing_is_worth_less_than_sinus_for_everyone() -> None:
    labels, _ = random_set(50, 2)
    labels[:25, SINUS_CLASS] = True
    trivial = trivial_scores(labels, WEIGHTS)
    assert trivial.nothing_predicted < 0 == trivial.sinus_for_everyone


def test_rows_without_any_label_or_no_rows_at_all_score_zero() -> None:
    for rows in (0, 1, 5):
        empty = np.zeros((rows, 26), dtype=bool)
        assert cinc_score(empty, empty, WEIGHTS) == 0.0


def test_sums_of_batches_add_up_to_the_score_in_any_order_of_rows() -> None:
    labels, decisions = random_set(100, 3)
    whole = cinc_score(labels, decisions, WEIGHTS)
    order = np.random.default_rng(4).permutation(100)
    parts = [cinc_sums(labels[rows], decisions[rows], WEIGHTS) for rows in np.split(order, 10)]
    assert float(score_of_sums(np.sum(parts, axis=0))) == pytest.approx(whole, abs=1e-12)
    assert row_sums(labels, decisions, WEIGHTS).shape == (100, 3)


def test_a_probability_of_exactly_the_threshold_is_not_predicted() -> None:
    assert decide(np.array([[0.5, np.nextafter(0.5, 1)]]), 0.5).tolist() == [[False, True]]


def test_absent_classes_are_named() -> None:
    labels = np.ones((2, 26), dtype=bool)
    labels[:, 3] = False
    assert absent_classes(labels) == ["Brady"]


def test_mean_by_recording_is_the_mean_of_its_segments() -> None:
    values = np.arange(12.0).reshape(4, 3)
    means = mean_by_recording(values, np.array([1, 0, 1, 1]))
    assert means.tolist() == [[3, 4, 5], [5, 6, 7]]
    assert mean_by_recording(np.zeros((0, 26)), np.array([], dtype=np.int64)).shape == (0, 26)
