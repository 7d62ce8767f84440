"""Thresholds that make the most of the CinC score, chosen on valid alone.

Candidates are the multiples of a step between 0 and 1. Every candidate of one search is scored at
once: a threshold's total is a sum over rows of what each gains by a class being predicted.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from ecg_core.metrics.cinc import cinc_sums, decide

ALMOST_EQUAL = 1e-9
"""Sums of rewards closer than this differ only in the order of their additions."""

Labels = Bool[np.ndarray, "row label"]
Probabilities = Float[np.ndarray, "row label"]
Weights = Float[np.ndarray, "label label"]


def candidate_thresholds(step: float, start: float) -> Float[np.ndarray, " candidate"]:
    """Return the multiples of `step` inside (0, 1), and `start`, in rising order."""
    parts = round(1 / step)
    return np.union1d(np.arange(1, parts) / parts, [start])


def one_threshold(
    labels: Labels, probabilities: Probabilities, weights: Weights, start: float, step: float
) -> float:
    """Return the one threshold for all classes with the best CinC score, ties nearest `start`."""
    if not _can_be_tuned(labels, weights):
        return start
    candidates = candidate_thresholds(step, start)
    falling = np.argsort(-probabilities, axis=1, kind="stable")
    earned = np.cumsum(np.take_along_axis(labels @ weights, falling, axis=1), axis=1)
    beyond = np.cumsum(~np.take_along_axis(labels, falling, axis=1), axis=1)
    rewards = earned / (labels.sum(axis=1, keepdims=True) + beyond)
    gains = np.diff(rewards, axis=1, prepend=0.0)
    below = _count_below(candidates, np.take_along_axis(probabilities, falling, axis=1))
    totals = _totals(gains.ravel(), below.ravel(), len(candidates))
    return float(candidates[_best(totals, candidates, start)])


def thresholds_per_class(
    labels: Labels, probabilities: Probabilities, weights: Weights, start: float, step: float
) -> Float[np.ndarray, " label"]:
    """Return a threshold for each class: coordinate ascent on the CinC score from `start`.

    Ties go to the value nearest `start`; classes that no row has stay there.
    """
    thresholds = np.full(labels.shape[1], start)
    if not _can_be_tuned(labels, weights):
        return thresholds
    candidates = candidate_thresholds(step, start)
    below = _count_below(candidates, probabilities)
    place = [int(np.searchsorted(candidates, start))] * labels.shape[1]
    earned, n_labels = labels @ weights, labels.sum(axis=1)
    decisions = decide(probabilities, start)
    moved = True
    while moved:
        moved = False
        for k in np.flatnonzero(labels.any(axis=0)):
            decisions[:, k] = False
            sums = (earned * decisions).sum(axis=1)
            union = n_labels + (decisions & ~labels).sum(axis=1)
            without = sums / np.maximum(union, 1)
            gains = (sums + earned[:, k]) / (union + ~labels[:, k]) - without
            totals = _totals(gains, below[:, k], len(candidates))
            best = _best(totals, candidates, start)
            if _is_better(totals, best, place[k], candidates, start):
                place[k], moved = best, True
            decisions[:, k] = below[:, k] > place[k]
    return np.asarray(candidates[place])


def _can_be_tuned(labels: Labels, weights: Weights) -> bool:
    """Where every label is sinus rhythm, or there is none, the score is 0 whatever is predicted."""
    sums = cinc_sums(labels, labels, weights)
    return sums.correct != sums.inactive


def _count_below(
    candidates: Float[np.ndarray, " candidate"], probabilities: Float[np.ndarray, "row label"]
) -> Int[np.ndarray, "row label"]:
    """Return how many candidates each probability is strictly above."""
    return np.searchsorted(candidates, probabilities, side="left")


def _totals(
    gains: Float[np.ndarray, " entry"], below: Int[np.ndarray, " entry"], n: int
) -> Float[np.ndarray, " candidate"]:
    """Return, for each candidate, the gains of the entries whose probability is above it."""
    at = np.bincount(below, gains, minlength=n + 1)
    return np.cumsum(at[::-1])[::-1][1:]


def _best(totals: np.ndarray, candidates: np.ndarray, start: float) -> int:
    """Return the place of the best total, among equals the one nearest `start`, then the lower."""
    equal = np.flatnonzero(totals >= totals.max() - ALMOST_EQUAL)
    return int(equal[np.argmin(np.round(np.abs(candidates[equal] - start), 12))])


def _is_better(
    totals: np.ndarray, best: int, place: int, candidates: np.ndarray, start: float
) -> bool:
    """Whether a move gains more than rounding, or gains nothing but goes nearer to `start`."""
    if totals[best] > totals[place] + ALMOST_EQUAL:
        return True
    return bool(abs(candidates[best] - start) < abs(candidates[place] - start) - ALMOST_EQUAL)
