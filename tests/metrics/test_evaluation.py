"""Headline numbers against plain metrics on repeated rows, and answers of odd models."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import f1_score, log_loss

from ecg_core.classes import CLASSES, SINUS_CLASS
from ecg_core.metrics import ranking
from ecg_core.metrics.calibration import expected_calibration_error, reliability_curve
from ecg_core.metrics.cinc import cinc_score, load_weights
from ecg_core.metrics.evaluation import (
    EvaluateParams,
    Predictions,
    by_recording,
    by_segment,
    headline,
    numbers,
    part_of,
    tune,
)
from ecg_core.metrics.evaluation_report import (
    Evaluation,
    PartsPredicted,
    evaluate,
    write_evaluation,
)
from tests.challenge_reader import read_answer, score_answers, write_header

WEIGHTS = load_weights()
PARAMS = EvaluateParams(
    batch_size=8,
    threshold=0.5,
    threshold_step=0.01,
    bootstrap=8,
    bootstrap_seed=1,
    lead_sets=(12, 2),
    calibration_bins=10,
    challenge_output=True,
)
ALL_LEADS = tuple(range(12))


def predicted(recordings: int, seed: int) -> Predictions:
    """Recordings of one to three segments and half as many patients, by an informed model."""
    generator = np.random.default_rng(seed)
    labels = generator.random((recordings, 26)) < 0.1
    labels[:, SINUS_CLASS] |= ~labels.any(axis=1)
    labels[0] = False
    counts = generator.integers(1, 4, recordings)
    recording = np.repeat(np.arange(recordings), counts)
    logits = generator.normal(size=(len(recording), 26)) - 2 + 3 * labels[recording]
    names = [f"R{number:04d}" for number in range(recordings)]
    patients = [f"p{number // 2}" for number in range(recordings)]
    sources = ["georgia" if number % 3 else "ptb-xl" for number in range(recordings)]
    table = pd.DataFrame({"source": sources, "record_id": names, "patient": patients})
    segment = np.concatenate([np.arange(count) for count in counts])
    return Predictions(table, labels, recording, segment, logits)


def with_logits(predictions: Predictions, logits: np.ndarray) -> Predictions:
    parts = {**vars(predictions), "logits": logits}
    return Predictions(**parts)


def evaluated(valid: Predictions, test: Predictions) -> Evaluation:
    return evaluate(lambda leads: PartsPredicted(valid, test), ALL_LEADS, PARAMS)


def test_numbers_of_everyone_once_are_the_plain_metrics() -> None:
    scored = by_segment(predicted(40, 1))
    thresholds = tune(scored, WEIGHTS, PARAMS)
    found = numbers(scored, thresholds, WEIGHTS, 10, np.ones((scored.n_patients, 1)))
    labels, probabilities = scored.labels, scored.probabilities
    decisions = probabilities > 0.5
    expected = {
        "cinc_fixed": cinc_score(labels, decisions, WEIGHTS),
        "cinc_one_tuned": cinc_score(labels, probabilities > thresholds["one_tuned"], WEIGHTS),
        "cinc_class_tuned": cinc_score(labels, probabilities > thresholds["class_tuned"], WEIGHTS),
        "auroc_macro": ranking.auroc_macro(labels, probabilities),
        "auroc_micro": ranking.auroc_micro(labels, probabilities),
        "auprc_macro": ranking.auprc_macro(labels, probabilities),
        "auprc_micro": ranking.auprc_micro(labels, probabilities),
        "f_macro": ranking.f_macro(labels, decisions),
        "f_micro": f1_score(labels, decisions, average="micro"),
        "exact_match": ranking.exact_match(labels, decisions),
        "calibration_error": expected_calibration_error(
            reliability_curve(labels, probabilities, 10)
        ),
        "loss_per_label": log_loss(labels.ravel(), probabilities.ravel()) / np.log(2),
    }
    expected["loss_per_positive"] = expected["loss_per_label"] * labels.size / labels.sum()
    assert {name: value[0] for name, value in found.items()} == pytest.approx(expected, abs=1e-12)


def test_a_patient_who_counts_twice_is_the_patient_repeated() -> None:
    once = predicted(20, 2)
    scored = by_recording(once)
    thresholds = tune(scored, WEIGHTS, PARAMS)
    counts = np.ones((scored.n_patients, 1))
    counts[3] = 2
    again = part_of(once, scored.patient == 3)
    labels = np.concatenate([scored.labels, again.labels])
    probabilities = np.concatenate([scored.probabilities, by_recording(again).probabilities])
    found = numbers(scored, thresholds, WEIGHTS, 10, counts)
    assert found["cinc_fixed"][0] == pytest.approx(
        cinc_score(labels, probabilities > 0.5, WEIGHTS), abs=1e-12
    )
    assert found["auprc_macro"][0] == pytest.approx(ranking.auprc_macro(labels, probabilities))
    assert found["f_macro"][0] == pytest.approx(ranking.f_macro(labels, probabilities > 0.5))
    assert found["calibration_error"][0] == pytest.approx(
        expected_calibration_error(reliability_curve(labels, probabilities, 10))
    )


def test_a_recording_is_the_mean_probability_of_its_segments() -> None:
    predictions = predicted(6, 3)
    segments = expit(predictions.logits[predictions.recording == 4])
    assert by_recording(predictions).probabilities[4].tolist() == pytest.approx(
        segments.mean(axis=0).tolist()
    )


def test_intervals_hold_the_number_and_narrow_with_more_recordings() -> None:
    widths = []
    for recordings in (50, 800):
        scored = by_recording(predicted(recordings, 4))
        table = headline(scored, tune(scored, WEIGHTS, PARAMS), WEIGHTS, PARAMS)
        assert (table["low"] <= table["value"]).all()
        assert (table["value"] <= table["high"]).drop("calibration_error").all()
        widths.append(table["high"] - table["low"])
    assert (widths[1] < widths[0]).all()


def test_order_of_recordings_and_segments_changes_no_number() -> None:
    predictions = predicted(30, 5)
    keep = np.random.default_rng(6).permutation(30)
    place = np.argsort(keep)
    segments = np.random.default_rng(7).permutation(len(predictions.logits))
    shuffled = Predictions(
        predictions.recordings.iloc[keep].reset_index(drop=True),
        predictions.labels[keep],
        place[predictions.recording[segments]],
        predictions.segment[segments],
        predictions.logits[segments],
    )
    assert evaluated(predictions, predictions).metrics == evaluated(shuffled, shuffled).metrics


def test_thresholds_know_nothing_of_test() -> None:
    valid, test = predicted(30, 8), predicted(30, 9)
    other = with_logits(test, test.logits[::-1].copy())
    tables = [evaluated(valid, part).tables["thresholds.csv"] for part in (test, other)]
    assert tables[0].equals(tables[1])


def test_all_six_scores_stand_beside_the_trivial_ones_and_the_counts() -> None:
    test = predicted(30, 10)
    metrics = evaluated(predicted(30, 11), test).metrics
    ways = ("fixed", "one_tuned", "class_tuned")
    scores = [metrics[unit][f"cinc_{way}"] for unit in ("recording", "segment") for way in ways]
    assert all(np.isfinite(scores))
    assert metrics["recording"]["cinc_of_sinus_for_everyone"] == 0.0
    assert metrics["segment"]["cinc_of_nothing_predicted"] < 0
    assert metrics["recordings"] == 30
    assert metrics["patients"] == 15
    assert metrics["recordings_without_scored_label"] == 1
    assert {"loss_per_label", "loss_per_positive"} <= set(metrics["segment"])


def test_tracking_gets_every_number_but_the_intervals() -> None:
    test = predicted(9, 21)
    flat = evaluated(test, test).flat_metrics()
    assert flat["recordings"] == 9
    assert {"recording.cinc_fixed", "segment.cinc_of_sinus_for_everyone"} <= set(flat)
    assert not [name for name in flat if "interval" in name]


def test_absent_classes_are_named_and_empty_in_the_table() -> None:
    test = predicted(30, 12)
    test.labels[:, [0, 7]] = False
    result = evaluated(test, test)
    assert result.metrics["classes_absent"].split()[:2] == ["AF", "IRBBB"]
    row = result.tables["per_class.csv"].iloc[7]
    assert (row["abbreviation"], row["auroc"], row["positives"]) == ("IRBBB", "", 0)


def odd_models() -> dict[str, tuple[Predictions, Predictions]]:
    valid, test = predicted(12, 13), predicted(12, 14)
    untrained = np.zeros_like(test.logits)
    one_class = with_logits(test, np.full_like(test.logits, -9.0))
    one_class.logits[:, SINUS_CLASS] = 9.0
    one_label = predicted(12, 14)
    one_label.labels[:] = False
    one_label.labels[:, SINUS_CLASS] = True
    single = part_of(predicted(3, 15), np.array([False, True, False]))
    sure = with_logits(test, np.where(test.logits > 0, 800.0, -800.0))
    return {
        "untrained": (
            with_logits(valid, np.zeros_like(valid.logits)),
            with_logits(test, untrained),
        ),
        "predicts nothing": (valid, with_logits(test, untrained - 9)),
        "one class only": (valid, one_class),
        "every label is sinus": (valid, one_label),
        "a single recording": (single, single),
        "no doubt at all": (valid, sure),
    }


@pytest.mark.parametrize("name", sorted(odd_models()))
def test_odd_models_have_defined_answers_without_warnings(name: str, tmp_path: Path) -> None:
    valid, test = odd_models()[name]
    write_evaluation(tmp_path, evaluated(valid, test))
    metrics = json.loads((tmp_path / "metrics.json").read_text())["evaluate"]
    assert np.isfinite(metrics["recording"]["cinc_fixed"])
    if name == "predicts nothing":
        nothing = metrics["recording"]["cinc_of_nothing_predicted"]
        assert metrics["recording"]["cinc_fixed"] == nothing
        assert metrics["recording"]["f_macro"] == 0.0
    if name == "untrained":
        assert metrics["recording"]["auroc_macro"] == 0.5
        assert metrics["segment"]["loss_per_label"] == 1.0
    if name == "one class only":
        assert metrics["recording"]["cinc_fixed"] == 0.0
    if name == "every label is sinus":
        assert metrics["recording"]["auroc_micro"] is not None
        assert metrics["recording"]["auroc_macro"] is None


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_evaluation(tmp_path / folder, evaluated(predicted(9, 16), predicted(9, 17)))
    names = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert {"leads.csv", "sources.csv", "challenge/R0008.csv"} <= {str(name) for name in names}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_predictions_have_a_row_for_every_recording_and_class() -> None:
    test = predicted(9, 18)
    tables = evaluated(test, test).tables
    assert len(tables["predictions.csv"]) == 9 * 26
    assert len(tables["segments.csv"]) == len(test.logits) * 26
    table = tables["predictions.csv"].query("record_id == 'R0005'")
    assert table["label"].to_list() == test.labels[5].astype(int).tolist()
    expected = (by_recording(test).probabilities[5] > 0.5).astype(int).tolist()
    assert table["decision"].to_list() == expected


def test_lead_sets_ask_the_model_for_their_leads_only() -> None:
    test, asked = predicted(5, 19), []

    def predict(leads: tuple[int, ...]) -> PartsPredicted:
        asked.append(leads)
        return PartsPredicted(test, test)

    table = evaluate(predict, ALL_LEADS, PARAMS).tables["leads.csv"]
    assert asked == [ALL_LEADS, (0, 1)]
    assert table[["leads", "names", "unit"]].iloc[2].tolist() == [2, "I II", "recording"]


def test_the_challenges_files_scored_by_its_rules_give_the_score_of_metrics_json(
    tmp_path: Path,
) -> None:
    test = predicted(40, 23)
    write_evaluation(tmp_path, evaluated(predicted(40, 22), test))
    generator = np.random.default_rng(24)
    for record_id, labels in zip(test.recordings["record_id"], test.labels, strict=True):
        # one of a merged class's codes, and one that is not scored
        codes = [str(generator.choice(CLASSES[k].split("|"))) for k in np.flatnonzero(labels)]
        write_header(tmp_path / "headers", record_id, [*codes, "55827005"])
    metrics = json.loads((tmp_path / "metrics.json").read_text())["evaluate"]["recording"]
    score = score_answers(tmp_path / "headers", tmp_path / "challenge")
    assert metrics["cinc_fixed"] == pytest.approx(score, rel=1e-5)
    assert abs(score - metrics["cinc_of_nothing_predicted"]) > 0.1
    assert abs(score) > 0.1
    answer = read_answer(tmp_path / "challenge" / "R0005.csv")
    for k, name in enumerate(CLASSES):
        chances = [answer[code][1] for code in name.split("|")]
        assert np.mean(chances) == by_recording(test).probabilities[5, k]
