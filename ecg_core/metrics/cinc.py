"""The score of the PhysioNet/CinC Challenge 2021 (evaluation-2021, evaluate_model.py), vectorised.

The score of a set is (observed - inactive) / (correct - inactive), each a sum over the whole set;
sums of batches may be added up, scores of batches may not be averaged.
"""

import csv
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ecg_core.classes import ABBREVIATIONS, SINUS_CLASS, WEIGHTS_FILE


class CincSums(NamedTuple):
    """What a set of rows earns by its decisions, by its own labels, and by sinus rhythm alone."""

    observed: float
    correct: float
    inactive: float


def load_weights() -> Float[np.ndarray, "label label"]:
    """Return the official rewards: row = the true class, column = the predicted one."""
    rows = list(csv.reader(WEIGHTS_FILE.read_text().splitlines()))
    return np.array([[float(weight) for weight in row[1:]] for row in rows[1:]])


def decide(
    probabilities: Float[np.ndarray, "row label"], thresholds: float | Float[np.ndarray, " label"]
) -> Bool[np.ndarray, "row label"]:
    """Return which classes are predicted: a probability strictly above its threshold."""
    return np.asarray(probabilities > thresholds)


def row_sums(
    labels: Bool[np.ndarray, "row label"],
    decisions: Bool[np.ndarray, "row label"],
    weights: Float[np.ndarray, "label label"],
) -> Float[np.ndarray, "row 3"]:
    """Return each row's share of the observed, correct and inactive sums.

    A share is the weights of all (true, predicted) pairs over the number of classes that are true
    or predicted; what is predicted are the decisions, the labels themselves, or sinus rhythm alone.
    """
    per_prediction = labels @ weights
    n_true = np.count_nonzero(labels, axis=1)
    n_predicted_only = np.count_nonzero(decisions & ~labels, axis=1)
    observed = (per_prediction * decisions).sum(axis=1) / np.maximum(n_true + n_predicted_only, 1)
    correct = (per_prediction * labels).sum(axis=1) / np.maximum(n_true, 1)
    inactive = per_prediction[:, SINUS_CLASS] / (n_true + ~labels[:, SINUS_CLASS])
    return np.stack([observed, correct, inactive], axis=1)


def cinc_sums(
    labels: Bool[np.ndarray, "row label"],
    decisions: Bool[np.ndarray, "row label"],
    weights: Float[np.ndarray, "label label"],
) -> CincSums:
    """Return the observed, correct and inactive sums over all rows."""
    observed, correct, inactive = row_sums(labels, decisions, weights).sum(axis=0).tolist()
    return CincSums(observed, correct, inactive)


def score_of_sums(sums: Float[np.ndarray, "*sets 3"]) -> Float[np.ndarray, "*sets"]:
    """Return the score of every set from its three sums; 0 where correct and inactive agree."""
    observed, correct, inactive = np.moveaxis(sums, -1, 0)
    span = correct - inactive
    scores: np.ndarray = np.zeros_like(span)
    np.divide(observed - inactive, span, out=scores, where=span != 0)
    return scores


def cinc_score(
    labels: Bool[np.ndarray, "row label"],
    decisions: Bool[np.ndarray, "row label"],
    weights: Float[np.ndarray, "label label"],
) -> float:
    """Return the official score: 1 is perfect, 0 is sinus for everyone, and it can be negative."""
    return float(score_of_sums(np.array(cinc_sums(labels, decisions, weights))))


class TrivialScores(NamedTuple):
    """The scores of two answers that no model is needed for."""

    nothing_predicted: float
    sinus_for_everyone: float


def trivial_scores(
    labels: Bool[np.ndarray, "row label"], weights: Float[np.ndarray, "label label"]
) -> TrivialScores:
    """Return the score when nothing is predicted, and when everyone gets sinus rhythm alone."""
    nothing = np.zeros_like(labels)
    sinus = nothing.copy()
    sinus[:, SINUS_CLASS] = True
    return TrivialScores(cinc_score(labels, nothing, weights), cinc_score(labels, sinus, weights))


def absent_classes(labels: Bool[np.ndarray, "row label"]) -> list[str]:
    """Return the abbreviations of the scored classes that no row has."""
    return [ABBREVIATIONS[k] for k in np.flatnonzero(~np.any(labels, axis=0))]


def mean_by_recording(
    values: Float[np.ndarray, "segment label"], recording: np.ndarray
) -> Float[np.ndarray, "recording label"]:
    """Return the mean over each recording's segments; `recording` counts from 0 without gaps."""
    if not len(values):
        return np.zeros((0, values.shape[1]))
    counts = np.bincount(recording)
    sums = [np.bincount(recording, column.astype(np.float64)) for column in values.T]
    return np.stack(sums, axis=1) / counts[:, None]
