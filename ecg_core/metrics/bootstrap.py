"""Bootstrap intervals: whole clusters (a patient's recordings) are drawn with replacement.

A resample is a column of counts, so every statistic of all resamples is a few matrix products.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ecg_core.metrics.ranking import areas, mean_of_defined, steps_of
from ecg_core.seeds import numpy_generator

LEVEL = 0.95
SETS_AT_ONCE = 50
"""Resamples per matrix product: bounds the memory, changes no result."""

Counts = Float[np.ndarray, "cluster set"]


def draw_counts(clusters: int, resamples: int, seed: int) -> Counts:
    """Return how often each cluster is in each resample of as many clusters."""
    generator = numpy_generator("bootstrap", seed)
    counts = np.empty((clusters, resamples))
    for resample in range(resamples):
        drawn = generator.integers(0, clusters, clusters)
        counts[:, resample] = np.bincount(drawn, minlength=clusters)
    return counts


def sums_by_cluster(
    values: Shaped[np.ndarray, "row column"], cluster: Int[np.ndarray, " row"], clusters: int
) -> Float[np.ndarray, "cluster column"]:
    """Return each column's sum over the rows of every cluster."""
    columns = [np.bincount(cluster, column, minlength=clusters) for column in values.T]
    return np.stack(columns, axis=1)


def resampled_sums(
    values: Shaped[np.ndarray, "row column"], cluster: Int[np.ndarray, " row"], counts: Counts
) -> Float[np.ndarray, "set column"]:
    """Return each column's sum over every resample."""
    return np.asarray(counts.T @ sums_by_cluster(values, cluster, len(counts)))


def resampled_areas(
    labels: Bool[np.ndarray, "row label"],
    scores: Float[np.ndarray, "row label"],
    cluster: Int[np.ndarray, " row"],
    counts: Counts,
) -> Float[np.ndarray, "2 2 set"]:
    """Return AUROC and AUPRC (first axis), macro and micro (second), of every resample."""
    n, entries = len(counts), np.repeat(cluster, labels.shape[1])
    classes = [steps_of(*column, cluster, n) for column in zip(labels.T, scores.T, strict=True)]
    all_entries = steps_of(labels.ravel(), scores.ravel(), entries, n)

    def of(part: Counts) -> np.ndarray:
        each = np.stack([areas(steps, part) for steps in classes], axis=2)
        return np.stack([mean_of_defined(each), areas(all_entries, part)], axis=1)

    return _in_parts(of, counts)


def _in_parts(of: Callable[[Counts], np.ndarray], counts: Counts) -> np.ndarray:
    starts = range(0, counts.shape[1], SETS_AT_ONCE)
    parts = [of(np.ascontiguousarray(counts[:, at : at + SETS_AT_ONCE])) for at in starts]
    return np.concatenate(parts, axis=-1)


def interval(values: Float[np.ndarray, " set"]) -> tuple[float, float]:
    """Return the middle 95 % of the resamples in which the statistic is defined, else NaN."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
