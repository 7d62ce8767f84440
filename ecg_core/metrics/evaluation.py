"""What a model is worth on one part of the split: every headline number, and how sure it is.

A number is computed from a column of counts (how often each patient is in the set), so the number
itself (everyone once) and its bootstrap come from the same lines.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from pydantic import Field
from scipy.special import expit

from ecg_core.metrics.bootstrap import (
    Counts,
    draw_counts,
    interval,
    resampled_areas,
    resampled_sums,
)
from ecg_core.metrics.cinc import decide, mean_by_recording, row_sums, score_of_sums
from ecg_core.metrics.ranking import divide, mean_of_defined
from ecg_core.metrics.thresholds import one_threshold, thresholds_per_class
from ecg_core.params import Section

FIXED, ONE_TUNED, CLASS_TUNED = "fixed", "one_tuned", "class_tuned"
"""The three ways to set thresholds: `evaluate.threshold`, one tuned on valid, one a class tuned."""

RECORDING, SEGMENT = "recording", "segment"
"""What is scored: the Challenge's unit, and the public training code's."""

Thresholds = dict[str, Float[np.ndarray, " label"]]
"""The thresholds of each way."""


class EvaluateParams(Section):
    """Section `evaluate`."""

    batch_size: int = Field(ge=1)
    threshold: float = Field(gt=0, lt=1)
    threshold_step: float = Field(gt=0, le=0.5)
    bootstrap: int = Field(ge=1)
    bootstrap_seed: int = Field(ge=0)
    lead_sets: tuple[Literal[12, 6, 3, 2, 1], ...]
    calibration_bins: int = Field(ge=1)
    challenge_output: bool


@dataclass(frozen=True)
class Predictions:
    """What a model said about segments, and which recordings they belong to."""

    recordings: pd.DataFrame
    """source, record_id, patient: one row a recording."""
    labels: Bool[np.ndarray, "recording label"]
    recording: Int[np.ndarray, " segment"]
    """The place of each segment's recording in `recordings`."""
    segment: Int[np.ndarray, " segment"]
    """The number of each segment within its recording."""
    logits: Float[np.ndarray, "segment label"]


@dataclass(frozen=True)
class Scored:
    """The rows that are scored, recordings or segments."""

    labels: Bool[np.ndarray, "row label"]
    probabilities: Float[np.ndarray, "row label"]
    patient: Int[np.ndarray, " row"]
    """Patients count from 0 without gaps."""
    loss: Float[np.ndarray, " row"] | None
    """Cross-entropy in bits, summed over the classes; None for recordings, which have no logits."""

    @property
    def n_patients(self) -> int:
        """How many patients there are."""
        return int(self.patient.max(initial=-1)) + 1


def by_recording(predictions: Predictions) -> Scored:
    """Return recordings with the mean probability over their segments."""
    means = mean_by_recording(expit(predictions.logits), predictions.recording)
    return Scored(predictions.labels, means, _patients(predictions), None)


def by_segment(predictions: Predictions) -> Scored:
    """Return segments, each with the labels of its recording."""
    labels, logits = predictions.labels[predictions.recording], predictions.logits
    # log(1 + e^z) - y z, without overflow
    loss = (np.logaddexp(0.0, logits) - labels * logits).sum(axis=1) / np.log(2)
    patient = _patients(predictions)[predictions.recording]
    return Scored(labels, expit(logits), patient, loss)


def _patients(predictions: Predictions) -> Int[np.ndarray, " recording"]:
    return np.asarray(pd.factorize(predictions.recordings["patient"], sort=True)[0])


def scored_units(predictions: Predictions) -> dict[str, Scored]:
    """Return both units by name."""
    return {RECORDING: by_recording(predictions), SEGMENT: by_segment(predictions)}


def part_of(predictions: Predictions, keep: Bool[np.ndarray, " recording"]) -> Predictions:
    """Return the predictions for some of the recordings."""
    segments = keep[predictions.recording]
    place = np.cumsum(keep) - 1
    return Predictions(
        recordings=predictions.recordings[keep].reset_index(drop=True),
        labels=predictions.labels[keep],
        recording=place[predictions.recording[segments]],
        segment=predictions.segment[segments],
        logits=predictions.logits[segments],
    )


def tune(
    valid: Scored, weights: Float[np.ndarray, "label label"], params: EvaluateParams
) -> Thresholds:
    """Return the thresholds of all three ways; only valid has a say."""
    search = (valid.labels, valid.probabilities, weights, params.threshold, params.threshold_step)
    shared = np.full(valid.labels.shape[1], params.threshold)
    return {
        FIXED: shared,
        ONE_TUNED: np.full_like(shared, one_threshold(*search)),
        CLASS_TUNED: thresholds_per_class(*search),
    }


def numbers(
    scored: Scored,
    thresholds: Thresholds,
    weights: Float[np.ndarray, "label label"],
    bins: int,
    counts: Counts,
) -> dict[str, Float[np.ndarray, " set"]]:
    """Return every headline number of every set of patients that `counts` describes."""
    found = cinc_numbers(scored, thresholds, weights, counts)
    areas = resampled_areas(scored.labels, scored.probabilities, scored.patient, counts)
    for name, (macro, micro) in zip(("auroc", "auprc"), areas, strict=True):
        found |= {f"{name}_macro": macro, f"{name}_micro": micro}
    found |= _decision_numbers(scored, thresholds[FIXED], counts)
    found["calibration_error"] = _calibration_errors(scored, bins, counts)
    if scored.loss is not None:
        found |= _loss_numbers(scored.labels, scored.loss, scored.patient, counts)
    return found


def cinc_numbers(
    scored: Scored,
    thresholds: Thresholds,
    weights: Float[np.ndarray, "label label"],
    counts: Counts,
) -> dict[str, Float[np.ndarray, " set"]]:
    """Return the CinC score with each way of setting thresholds, for every set of patients."""
    found = {}
    for way, limits in thresholds.items():
        earned = row_sums(scored.labels, decide(scored.probabilities, limits), weights)
        found[f"cinc_{way}"] = score_of_sums(resampled_sums(earned, scored.patient, counts))
    return found


def _decision_numbers(
    scored: Scored, thresholds: Float[np.ndarray, " label"], counts: Counts
) -> dict[str, np.ndarray]:
    labels, decisions = scored.labels, decide(scored.probabilities, thresholds)
    exact = (labels == decisions).all(axis=1, keepdims=True)
    columns = [labels & decisions, labels, decisions, exact, np.ones_like(exact)]
    sums = resampled_sums(np.concatenate(columns, axis=1), scored.patient, counts)
    n_classes = labels.shape[1]
    both, true, predicted = np.split(sums[:, : 3 * n_classes], 3, axis=1)
    return {
        "f_macro": mean_of_defined(divide(2 * both, true + predicted)),
        "f_micro": divide(2 * both.sum(axis=1), (true + predicted).sum(axis=1)),
        "exact_match": divide(sums[:, -2], sums[:, -1]),
    }


def _calibration_errors(scored: Scored, bins: int, counts: Counts) -> np.ndarray:
    """Return sum over bins of |what was said - what came| over all entries, as calibration.py."""
    rows, n_classes = scored.labels.shape
    place = np.clip((scored.probabilities * bins).astype(np.int64), 0, bins - 1)
    place += np.arange(rows)[:, None] * bins
    gaps = np.bincount(
        place.ravel(), (scored.probabilities - scored.labels).ravel(), minlength=rows * bins
    ).reshape(rows, bins)
    columns = np.concatenate([gaps, np.full((rows, 1), n_classes)], axis=1)
    sums = resampled_sums(columns, scored.patient, counts)
    return divide(np.abs(sums[:, :-1]).sum(axis=1), sums[:, -1])


def _loss_numbers(
    labels: np.ndarray, loss: np.ndarray, patient: np.ndarray, counts: Counts
) -> dict[str, np.ndarray]:
    columns = np.stack([loss, labels.sum(axis=1), np.full(len(loss), labels.shape[1])], axis=1)
    total, positives, entries = resampled_sums(columns, patient, counts).T
    return {"loss_per_label": divide(total, entries), "loss_per_positive": divide(total, positives)}


def headline(
    scored: Scored,
    thresholds: Thresholds,
    weights: Float[np.ndarray, "label label"],
    params: EvaluateParams,
) -> pd.DataFrame:
    """Return every headline number with its 95 % interval: value, low, high, by name."""
    drawn = draw_counts(scored.n_patients, params.bootstrap, params.bootstrap_seed)
    everyone_once = np.ones((scored.n_patients, 1))
    counts = np.concatenate([everyone_once, drawn], axis=1)
    found = numbers(scored, thresholds, weights, params.calibration_bins, counts)
    rows = {name: (float(value[0]), *interval(value[1:])) for name, value in found.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
