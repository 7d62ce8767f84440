"""Resampled statistics against the statistic of really repeated rows."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from ecg_core.metrics.bootstrap import (
    draw_counts,
    interval,
    resampled_areas,
    resampled_sums,
)
from ecg_core.metrics.cinc import cinc_score, load_weights, row_sums, score_of_sums

WEIGHTS = load_weights()


def clustered_set() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.random((60, 26)) < 0.5
    scores = np.round(generator.random((60, 26)) + 0.3 * labels, 1)
    return labels, scores, generator.permutation(np.arange(60) // 3)


def rows_of_resample(cluster: np.ndarray, counts: np.ndarray) -> np.ndarray:
    drawn = np.repeat(np.arange(len(counts)), counts.astype(int))
    return np.concatenate([np.flatnonzero(cluster == one) for one in drawn])


def test_every_resample_has_as_many_clusters_as_there_are() -> None:
    counts = draw_counts(20, 50, 1)
    assert (counts.sum(axis=0) == 20).all()
    assert np.array_equal(counts, draw_counts(20, 50, 1))
    assert not np.array_equal(counts, draw_counts(20, 50, 2))


def test_scores_of_resamples_equal_those_of_repeated_patients() -> None:
    labels, scores, cluster = clustered_set()
    counts = draw_counts(20, 5, 1)
    sums = resampled_sums(row_sums(labels, scores > 0.5, WEIGHTS), cluster, counts)
    for resample, score in enumerate(score_of_sums(sums)):
        rows = rows_of_resample(cluster, counts[:, resample])
        expected = cinc_score(labels[rows], scores[rows] > 0.5, WEIGHTS)
        assert score == pytest.approx(expected, abs=1e-12)


def test_areas_of_resamples_equal_those_of_repeated_patients() -> None:
    labels, scores, cluster = clustered_set()
    counts = draw_counts(20, 150, 1)
    found = resampled_areas(labels, scores, cluster, counts)
    for resample in (0, 99, 100, 149):
        rows = rows_of_resample(cluster, counts[:, resample])
        for way, average in enumerate(("macro", "micro")):
            auroc = roc_auc_score(labels[rows], scores[rows], average=average)
            auprc = average_precision_score(labels[rows], scores[rows], average=average)
            assert found[:, way, resample].tolist() == pytest.approx([auroc, auprc], abs=1e-12)


def test_interval_of_a_mean_is_about_two_standard_errors_wide() -> None:
    values = np.random.default_rng(3).normal(size=(400, 1))
    counts = draw_counts(400, 2000, 1)
    low, high = interval(resampled_sums(values, np.arange(400), counts)[:, 0] / 400)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.08)
    assert low < values.mean() < high


def test_patients_with_many_equal_recordings_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(4).normal(size=(40, 1)), 10, axis=0)
    apart, together = np.arange(400), np.arange(400) // 10
    widths = []
    for cluster, clusters in ((apart, 400), (together, 40)):
        sums = resampled_sums(values, cluster, draw_counts(clusters, 1000, 1))
        low, high = interval(sums[:, 0] / 400)
        widths.append(high - low)
    assert widths[1] > 2 * widths[0]


def test_undefined_resamples_are_left_out_and_none_left_is_nan() -> None:
    assert interval(np.array([np.nan, 1.0, np.nan])) == (1.0, 1.0)
    assert np.isnan(interval(np.full(3, np.nan))).all()
    one = np.zeros((1, 26), dtype=bool)
    found = resampled_areas(one, one * 0.5, np.array([0]), draw_counts(1, 4, 1))
    assert np.isnan(found).all()
