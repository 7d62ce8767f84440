"""All of reports/evaluate: which tables there are, and how they are written."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ecg_core.classes import CLASSES
from ecg_core.leads import LEAD_SETS
from ecg_core.metrics.cinc import load_weights
from ecg_core.metrics.evaluation import (
    FIXED,
    RECORDING,
    SEGMENT,
    EvaluateParams,
    Predictions,
    Thresholds,
    scored_units,
)
from ecg_core.metrics.evaluation_tables import (
    Tree,
    calibration_table,
    class_table,
    headlines,
    lead_rows,
    leading,
    metrics_tree,
    recording_table,
    segment_table,
    source_table,
    threshold_table,
    tuned_thresholds,
)
from ecg_core.outputs import write_csv, write_json, write_text

Leads = tuple[int, ...]


class PartsPredicted(NamedTuple):
    """What a model said about both held-out parts."""

    valid: Predictions
    test: Predictions


class Evaluation(NamedTuple):
    """Everything that evaluate reports."""

    metrics: Tree
    tables: dict[str, pd.DataFrame]
    """By file name."""


def evaluate(
    predict: Callable[[Leads], PartsPredicted], leads: Leads, params: EvaluateParams
) -> Evaluation:
    """Evaluate a model with its own leads, and with each lead set (what it has of it)."""
    weights = load_weights()
    valid, test = predict(leads)
    thresholds = tuned_thresholds(valid, weights, params)
    found = headlines(test, thresholds, weights, params)
    lead_tables = []
    for size in params.lead_sets:
        kept = tuple(lead for lead in LEAD_SETS[size] if lead in leads)
        if kept == leads:
            lead_tables.append(lead_rows(size, kept, found))
        elif kept:
            few = predict(kept)
            tuned = tuned_thresholds(few.valid, weights, params)
            lead_tables.append(lead_rows(size, kept, headlines(few.test, tuned, weights, params)))
    tables = {
        "predictions.csv": recording_table(test, thresholds[RECORDING]),
        "segments.csv": segment_table(test, thresholds[SEGMENT]),
        "per_class.csv": class_table(test, thresholds),
        "thresholds.csv": threshold_table(valid, thresholds),
        "calibration.csv": calibration_table(test, params.calibration_bins),
        "sources.csv": source_table(test, thresholds, weights, params),
    }
    if lead_tables:
        tables["leads.csv"] = leading(pd.concat(lead_tables), "leads", "names")
    return Evaluation(metrics_tree(test, valid, thresholds, found, weights), tables)


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write metrics.json and every table."""
    for name, table in evaluation.tables.items():
        write_csv(folder / name, table)
    write_json(folder / "metrics.json", {"evaluate": evaluation.metrics})


def write_challenge_output(folder: Path, test: Predictions, thresholds: Thresholds) -> None:
    """Write what the Challenge's own scorer reads: a CSV file a recording, named record_id.csv.

    A merged class is written once under each of its codes; the scorer merges them again.
    """
    scored = scored_units(test)[RECORDING]
    codes = [(code, k) for k, name in enumerate(CLASSES) for code in name.split("|")]
    header = ",".join(code for code, _ in codes)
    columns = [k for _, k in codes]
    decisions = (scored.probabilities > thresholds[FIXED])[:, columns].astype(int)
    for row, record_id in enumerate(test.recordings["record_id"]):
        lines = [
            f"#{record_id}",
            header,
            ",".join(str(decision) for decision in decisions[row]),
            ",".join(repr(float(value)) for value in scored.probabilities[row, columns]),
        ]
        write_text(folder / f"{record_id}.csv", "\n".join(lines) + "\n")
