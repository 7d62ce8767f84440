"""Is a patient's other recording the nearest of all? Gallery against probe by cosine."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from ecg_core.metrics.bootstrap import Counts, draw_counts, interval
from ecg_core.metrics.ranking import divide

TOP = (1, 5)


class Matching(NamedTuple):
    """Every probe against the whole gallery."""

    cosines: Float[np.ndarray, "probe gallery"]
    own: Int[np.ndarray, " probe"]
    """Where in the gallery the probe's patient is."""

    def rank(self) -> Int[np.ndarray, " probe"]:
        """Return how many of the gallery are at least as near as the patient's own, itself too.

        So ties count against the model: equal embeddings for everyone match nobody.
        """
        own = np.take_along_axis(self.cosines, self.own[:, None], axis=1)
        return np.asarray((self.cosines >= own).sum(axis=1))


def mean_embeddings(
    embeddings: Float[np.ndarray, "segment channel"], recording: Int[np.ndarray, " segment"]
) -> Float[np.ndarray, "recording channel"]:
    """Return the direction of the mean of each recording's unit vectors, of length 1."""
    sums = np.zeros((int(recording.max(initial=-1)) + 1, embeddings.shape[1]))
    np.add.at(sums, recording, embeddings)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return divide(sums, np.where(length > 0, length, 1.0))


def match(
    probes: Float[np.ndarray, "probe channel"],
    gallery: Float[np.ndarray, "gallery channel"],
    probe_patients: np.ndarray,
    gallery_patients: np.ndarray,
) -> Matching:
    """Compare unit vectors; each patient has one recording in the gallery and one among probes.

    Raises ValueError where a probe's patient is not in the gallery, or there twice.
    """
    same = probe_patients[:, None] == gallery_patients[None, :]
    if not (same.sum(axis=1) == 1).all():
        raise ValueError("expected every probe's patient once in the gallery")
    # a vector with itself is 1, not 1.0000000002
    return Matching(np.clip(probes @ gallery.T, -1.0, 1.0), same.argmax(axis=1))


def numbers(matching: Matching, counts: Counts) -> dict[str, Float[np.ndarray, " set"]]:
    """Return top-1, top-5 and equal error rate of every set of probes that `counts` describes."""
    rank, probes = matching.rank(), counts.sum(axis=0)
    found = {f"top{k}": divide(counts.T @ (rank <= k), probes) for k in TOP}
    return {**found, "equal_error_rate": equal_error_rates(matching, counts)}


def equal_error_rates(matching: Matching, counts: Counts) -> Float[np.ndarray, " set"]:
    """Return the rate at which as many strangers are accepted as patients are rejected.

    Thresholds are at and just above the patients' own cosines; where none makes both rates equal,
    it is their mean where they are nearest. NaN without strangers.
    """
    cosines, n_gallery = matching.cosines, matching.cosines.shape[1]
    if n_gallery < 2:
        return np.full(counts.shape[1], np.nan)
    own = np.take_along_axis(cosines, matching.own[:, None], axis=1)
    strangers: Bool[np.ndarray, "probe gallery"] = np.ones_like(cosines, dtype=bool)
    np.put_along_axis(strangers, matching.own[:, None], False, axis=1)
    others = np.sort(cosines[strangers].reshape(len(cosines), n_gallery - 1), axis=1)
    limits = np.unique([own, np.nextafter(own, np.inf)])
    below = np.stack([np.searchsorted(row, limits, side="left") for row in others])
    accepted = 1 - below / (n_gallery - 1)
    rejected = (own < limits).astype(np.float64)
    probes = counts.sum(axis=0)[:, None]
    false_accepts, false_rejects = counts.T @ accepted / probes, counts.T @ rejected / probes
    nearest = np.abs(false_accepts - false_rejects).argmin(axis=1)[:, None]
    both = (false_accepts + false_rejects) / 2
    return np.asarray(np.take_along_axis(both, nearest, axis=1)[:, 0])


def chance(n_gallery: int) -> dict[str, float]:
    """Return what guessing gives."""
    return {f"chance_top{k}": min(k, n_gallery) / n_gallery for k in TOP}


def headline(matching: Matching, resamples: int, seed: int) -> dict[str, float]:
    """Return every number with its 95 % interval (patients resampled) and the chance levels.

    Names: patients, top1, top1_low, top1_high, ..., chance_top1, chance_top5.
    """
    probes, n_gallery = matching.cosines.shape
    counts = np.concatenate([np.ones((probes, 1)), draw_counts(probes, resamples, seed)], axis=1)
    row: dict[str, float] = {"patients": float(probes)}
    for name, values in numbers(matching, counts).items():
        low, high = interval(values[1:])
        row |= {name: float(values[0]), f"{name}_low": low, f"{name}_high": high}
    return {**row, **chance(n_gallery)}


def match_table(matching: Matching, probes: pd.DataFrame, gallery: pd.DataFrame) -> pd.DataFrame:
    """Return one row a probe: its patient, the rank of its own, and the nearest in the gallery."""
    nearest = matching.cosines.argmax(axis=1)
    rows = np.arange(len(probes))
    return pd.DataFrame(
        {
            "patient": probes["patient"].to_numpy(),
            "probe": probes["record_id"].to_numpy(),
            "gallery": gallery["record_id"].to_numpy()[matching.own],
            "rank": matching.rank(),
            "cosine": matching.cosines[rows, matching.own],
            "nearest": gallery["record_id"].to_numpy()[nearest],
            "nearest_cosine": matching.cosines[rows, nearest],
        }
    )
