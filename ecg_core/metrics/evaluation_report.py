"""All of reports/evaluate: which tables there are, and how they are written."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ecg_core.classes import CLASSES
from ecg_core.leads import LEAD_SETS
from ecg_core.metrics.cinc import decide, load_weights
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
from ecg_core.outputs import write_json, write_text
from ecg_core.tables import write_csv

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
    challenge_output: dict[str, str]
    """The Challenge's own files by record_id, where they are wanted."""

    def flat_metrics(self) -> dict[str, float]:
        """Return the defined numbers by dotted name, without their intervals."""
        flat = {name: value for name, value in self.metrics.items() if not isinstance(value, dict)}
        for unit in (RECORDING, SEGMENT):
            flat |= {f"{unit}.{name}": value for name, value in self.metrics[unit].items()}
        numbers = {name: value for name, value in flat.items() if isinstance(value, int | float)}
        return {name: float(value) for name, value in numbers.items()}


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
    files = challenge_output(test, thresholds[RECORDING]) if params.challenge_output else {}
    return Evaluation(metrics_tree(test, valid, thresholds, found, weights), tables, files)


def write_evaluation(folder: Path, evaluation: Evaluation) -> list[Path]:
    """Write metrics.json and every table; return them."""
    for name, table in evaluation.tables.items():
        write_csv(folder / name, table)
    # an empty folder where they are not wanted: the stage has the same outputs always
    (folder / "challenge").mkdir(parents=True, exist_ok=True)
    for record_id, text in evaluation.challenge_output.items():
        write_text(folder / "challenge" / f"{record_id}.csv", text)
    write_json(folder / "metrics.json", {"evaluate": evaluation.metrics})
    return [folder / name for name in (*evaluation.tables, "challenge", "metrics.json")]


def challenge_output(test: Predictions, thresholds: Thresholds) -> dict[str, str]:
    """Return what the Challenge's own scorer reads: the text of RECORD_ID.csv by record_id.

    A merged class is written once under each of its codes; the scorer merges them again.
    """
    scored = scored_units(test)[RECORDING]
    codes = [(code, k) for k, name in enumerate(CLASSES) for code in name.split("|")]
    columns = [k for _, k in codes]
    decisions = decide(scored.probabilities, thresholds[FIXED])[:, columns].astype(int)
    files = {}
    for row, record_id in enumerate(test.recordings["record_id"]):
        lines = [
            f"#{record_id}",
            ",".join(code for code, _ in codes),
            ",".join(str(decision) for decision in decisions[row]),
            ",".join(repr(float(value)) for value in scored.probabilities[row, columns]),
        ]
        files[str(record_id)] = "\n".join(lines) + "\n"
    return files
