"""c5: the Challenge's scores, as the official scorer and as the public code gave them."""

import numpy as np
import torch

from ecg_core.classes import CLASSES
from ecg_core.losses import binary_cross_entropy
from ecg_core.metrics.cinc import cinc_score, decide, load_weights, row_sums, score_of_sums
from ecg_core.metrics.ranking import (
    areas_micro,
    areas_per_class,
    entry_accuracy,
    exact_match,
    f_per_class,
    mean_of_defined,
    precision_micro,
    recall_micro,
)
from ecg_core.training.objectives import BITS
from tests.replay.classifier import LOGGED, LOGGED_FRACTION
from tests.replay.comparison import SCORE, Comparison
from tests.replay.fixtures import Fixtures, Json

BATCH = 32


def replay_scores(stem: str, fixtures: Fixtures, table: Comparison) -> None:
    """Score every set of labels and logits."""
    arrays, told = fixtures.pair(stem)
    if "weights" in arrays:
        table.exact("weights", load_weights(), arrays["weights"])
    if "classes" in arrays:
        # the codes of a merged class stand in another order there
        same = [
            set(a.split("|")) == set(b.split("|"))
            for a, b in zip(arrays["classes"], CLASSES, strict=True)
        ]
        table.exact("classes in order", same, [True] * len(CLASSES))
    for name, expected in told.items():
        labels, logits = arrays[f"{name}/labels"].astype(bool), arrays[f"{name}/logits"]
        probabilities = torch.sigmoid(torch.from_numpy(logits)).numpy().astype(np.float64)
        _compare_official(table, name, expected["official"], labels, probabilities)
        for key, size in (("fairseq_single_batch", len(labels)), ("fairseq_batches_of_32", BATCH)):
            if key in expected:
                _compare_public(table, f"{name} {key}", expected[key], labels, logits, size)


def _compare_official(
    table: Comparison, name: str, told: Json, labels: np.ndarray, probabilities: np.ndarray
) -> None:
    decisions = decide(probabilities, 0.5)
    auroc, auprc = areas_per_class(labels, probabilities)
    f_measures = f_per_class(labels, decisions)
    measured = {
        "challenge_metric": cinc_score(labels, decisions, load_weights()),
        "auroc_macro": mean_of_defined(auroc),
        "auprc_macro": mean_of_defined(auprc),
        "accuracy_exact": exact_match(labels, decisions),
        "f_measure_macro": mean_of_defined(f_measures),
        "auroc_per_class": auroc,
        "auprc_per_class": auprc,
        "f_per_class": f_measures,
    }
    for key, value in measured.items():
        if key in told:
            # JSON's null is what is not defined
            expected = np.array(told[key], dtype=np.float64)
            table.close(
                f"{name} official {key}", value, expected, absolute=SCORE, group=f"{name} official"
            )


def _compare_public(
    table: Comparison, at: str, told: Json, labels: np.ndarray, logits: np.ndarray, size: int
) -> None:
    probabilities = torch.sigmoid(torch.from_numpy(logits)).numpy().astype(np.float64)
    decisions, weights = decide(probabilities, 0.5), load_weights()
    starts = range(0, len(labels), size)
    batches = [
        row_sums(labels[i : i + size], decisions[i : i + size], weights).sum(axis=0) for i in starts
    ]
    observed, correct, inactive = sums = np.sum(batches, axis=0)
    auroc, auprc = areas_micro(labels, probabilities)
    measured = {"cinc_score_raw": score_of_sums(sums), "auroc": auroc, "auprc": auprc}
    if not labels.any() or labels.all():
        # what is not defined is NaN here; sklearn's word for it depends on its version
        table.skip(f"{at} areas, where all labels are the same")
        del measured["auroc"], measured["auprc"]
    for key, value in measured.items():
        if key in told:
            expected = _number(told[key])
            table.close(f"{at} {key}", value, expected, absolute=SCORE, group=f"{at} scores")
    for key, value in {"o_score": observed, "c_score": correct, "i_score": inactive}.items():
        if key in told:
            table.close(f"{at} {key}", value, told[key], relative=SCORE, group=f"{at} sums")
    nats = float(binary_cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels).float()))
    logged = {
        "loss": (nats / labels.size * BITS, LOGGED),
        "cinc_score": (float(score_of_sums(sums)), LOGGED),
        "accuracy": (entry_accuracy(labels, decisions), LOGGED_FRACTION),
        "em_accuracy": (exact_match(labels, decisions), LOGGED_FRACTION),
        "precision": (precision_micro(labels, decisions), LOGGED_FRACTION),
        "recall": (recall_micro(labels, decisions), LOGGED_FRACTION),
    }
    for key, (found, allowed) in logged.items():
        if key in told.get("logged", {}):
            expected = _number(told["logged"][key])
            name, group = f"{at} logged {key}", f"{at} logged"
            table.close(name, found, expected, absolute=allowed, group=group)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
