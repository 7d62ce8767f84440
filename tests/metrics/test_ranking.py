"""Ranking metrics against the official scorer, sklearn, and pairs counted one by one."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from ecg_core.metrics import ranking

GOLDEN = Path(__file__).parents[1] / "golden"
OFFICIAL = json.loads((GOLDEN / "c5_cinc.json").read_text())


def golden_set(name: str) -> tuple[np.ndarray, np.ndarray]:
    arrays = np.load(GOLDEN / "c5_cinc.npz")
    logits = arrays[f"{name}/logits"].astype(np.float64)
    return arrays[f"{name}/labels"], 1 / (1 + np.exp(-logits))


def numbers(values: list[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_macro_and_per_class_equal_the_official_scorer(name: str) -> None:
    labels, probabilities = golden_set(name)
    decisions, official = probabilities > 0.5, OFFICIAL[name]["official"]
    exact = {"abs": 1e-12, "nan_ok": True}
    assert ranking.auroc_macro(labels, probabilities) == pytest.approx(
        official["auroc_macro"], **exact
    )
    assert ranking.auprc_macro(labels, probabilities) == pytest.approx(
        official["auprc_macro"], **exact
    )
    assert ranking.f_macro(labels, decisions) == pytest.approx(official["f_measure_macro"], **exact)
    assert ranking.exact_match(labels, decisions) == official["accuracy_exact"]
    assert ranking.auroc_per_class(labels, probabilities).tolist() == pytest.approx(
        numbers(official["auroc_per_class"]), **exact
    )
    assert ranking.auprc_per_class(labels, probabilities).tolist() == pytest.approx(
        numbers(official["auprc_per_class"]), **exact
    )
    assert ranking.f_per_class(labels, decisions).tolist() == pytest.approx(
        numbers(official["f_per_class"]), **exact
    )


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_micro_equals_the_public_code(name: str) -> None:
    labels, probabilities = golden_set(name)
    public, decisions = OFFICIAL[name]["fairseq_single_batch"], probabilities > 0.5
    assert ranking.auroc_micro(labels, probabilities) == pytest.approx(public["auroc"], abs=1e-12)
    assert ranking.auprc_micro(labels, probabilities) == pytest.approx(public["auprc"], abs=1e-12)
    logged, rounded = public["logged"], {"abs": 6e-6, "nan_ok": True}
    assert ranking.entry_accuracy(labels, decisions) == pytest.approx(logged["accuracy"], **rounded)
    assert ranking.precision_micro(labels, decisions) == pytest.approx(
        logged["precision"], **rounded
    )
    assert ranking.recall_micro(labels, decisions) == pytest.approx(logged["recall"], **rounded)


@given(rows=st.integers(2, 40), levels=st.integers(2, 9), seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_areas_equal_sklearn_with_many_ties(rows: int, levels: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.random((rows, 5)) < 0.4
    labels[0], labels[1] = True, False
    scores = generator.integers(0, levels, (rows, 5)) / levels
    for average in ("macro", "micro"):
        auroc = getattr(ranking, f"auroc_{average}")(labels, scores)
        auprc = getattr(ranking, f"auprc_{average}")(labels, scores)
        assert auroc == pytest.approx(roc_auc_score(labels, scores, average=average), abs=1e-12)
        expected = average_precision_score(labels, scores, average=average)
        assert auprc == pytest.approx(expected, abs=1e-12)
    decisions = scores > 0.5
    expected = f1_score(labels, decisions, average="micro", zero_division=np.nan)
    assert ranking.f_micro(labels, decisions) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_counts_stand_for_repeated_rows() -> None:
    generator = np.random.default_rng(0)
    labels, scores = generator.random(30) < 0.4, generator.integers(0, 9, 30) / 8
    rows = generator.integers(0, 30, 30)
    counts = np.bincount(rows, minlength=30)[:, None].astype(np.float64)
    auroc, auprc = ranking.areas(ranking.steps_of(labels, scores, np.arange(30), 30), counts)
    assert auroc[0] == pytest.approx(roc_auc_score(labels[rows], scores[rows]), abs=1e-12)
    assert auprc[0] == pytest.approx(average_precision_score(labels[rows], scores[rows]), abs=1e-12)


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    labels = np.array([1, 1, 0, 0, 0], dtype=bool)
    scores = np.array([0.9, 0.4, 0.4, 0.5, 0.1])
    pairs = [(p, n) for p in scores[labels] for n in scores[~labels]]
    share = sum((p > n) + (p == n) / 2 for p, n in pairs) / len(pairs)
    assert ranking.auroc_micro(labels[:, None], scores[:, None]) == pytest.approx(share)


def test_a_class_without_positives_is_skipped_and_one_without_negatives_has_no_auroc() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]], dtype=bool)
    scores = np.array([[0.9, 0.2, 0.3], [0.8, 0.1, 0.2], [0.7, 0.3, 0.9]])
    assert ranking.auroc_per_class(labels, scores).tolist() == pytest.approx(
        [0.5, np.nan, np.nan], nan_ok=True
    )
    assert ranking.auroc_macro(labels, scores) == 0.5
    assert ranking.auprc_per_class(labels, scores)[1:].tolist() == pytest.approx(
        [np.nan, 1.0], nan_ok=True
    )


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_or_a_single_one_gives_nan_and_no_warning(rows: int) -> None:
    labels = np.zeros((rows, 26), dtype=bool)
    scores = np.full((rows, 26), 0.4)
    for name in ("auroc_macro", "auprc_macro", "auroc_micro", "auprc_micro"):
        assert np.isnan(getattr(ranking, name)(labels, scores))
    for name in ("f_macro", "f_micro", "precision_micro", "recall_micro"):
        assert np.isnan(getattr(ranking, name)(labels, scores > 0.5))
    matched = ranking.exact_match(labels, scores > 0.5)
    assert matched == 1.0 if rows else np.isnan(matched)


def test_equal_scores_for_everyone_are_worth_a_coin() -> None:
    labels = np.array([[1, 0], [0, 1], [0, 0]], dtype=bool)
    assert ranking.auroc_micro(labels, np.full((3, 2), 0.5)) == 0.5
    assert ranking.auprc_micro(labels, np.full((3, 2), 0.5)) == pytest.approx(2 / 6)
