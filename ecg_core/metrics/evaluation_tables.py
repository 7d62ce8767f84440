"""The tables of reports/evaluate: from predictions to data frames and one tree of metrics."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from ecg_core.classes import ABBREVIATIONS, CLASSES
from ecg_core.leads import LEADS
from ecg_core.metrics.calibration import reliability_curve
from ecg_core.metrics.cinc import absent_classes, decide, trivial_scores
from ecg_core.metrics.evaluation import (
    CLASS_TUNED,
    FIXED,
    ONE_TUNED,
    RECORDING,
    SEGMENT,
    EvaluateParams,
    Predictions,
    Scored,
    Thresholds,
    headline,
    part_of,
    scored_units,
    tune,
)
from ecg_core.metrics.ranking import auprc_per_class, auroc_per_class, divide, f_per_class

WAYS = (FIXED, ONE_TUNED, CLASS_TUNED)
Weights = Float[np.ndarray, "label label"]
Tree = dict[str, Any]
"""Numbers and texts by name, nested."""


def tuned_thresholds(
    valid: Predictions, weights: Weights, params: EvaluateParams
) -> dict[str, Thresholds]:
    """Return the thresholds for recordings, tuned on valid's recordings, and for segments."""
    return {unit: tune(rows, weights, params) for unit, rows in scored_units(valid).items()}


def headlines(
    test: Predictions,
    thresholds: Mapping[str, Thresholds],
    weights: Weights,
    params: EvaluateParams,
) -> dict[str, pd.DataFrame]:
    """Return value, low and high of every headline number, for each unit."""
    return {
        unit: headline(rows, thresholds[unit], weights, params)
        for unit, rows in scored_units(test).items()
    }


def metrics_tree(
    test: Predictions,
    valid: Predictions,
    thresholds: Mapping[str, Thresholds],
    found: Mapping[str, pd.DataFrame],
    weights: Weights,
) -> Tree:
    """Return what stands in metrics.json; undefined numbers are None."""
    tree: Tree = {**_counts(test), "valid_recordings": len(valid.recordings)}
    tree["classes_absent"] = " ".join(absent_classes(test.labels))
    tree["classes_absent_from_valid"] = " ".join(absent_classes(valid.labels))
    intervals: Tree = {}
    for unit, rows in scored_units(test).items():
        values = {str(name): number(value) for name, value in found[unit]["value"].items()}
        trivial = trivial_scores(rows.labels, weights)
        values |= {f"cinc_of_{name}": number(score) for name, score in trivial._asdict().items()}
        tree[unit] = values
        intervals[unit] = {
            str(name): {"low": number(row["low"]), "high": number(row["high"])}
            for name, row in found[unit].iterrows()
        }
        one = float(thresholds[unit][ONE_TUNED][0])
        tree[f"{unit}_one_tuned_threshold"] = number(one)
    return {**tree, "interval": intervals}


def number(value: float) -> float | None:
    """Return a number with six significant digits, None for NaN."""
    return None if np.isnan(value) else float(f"{value:.6g}")


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose numbers have six significant digits, so that files compare."""
    floats = table.select_dtypes("float").columns
    return table.assign(**{name: table[name].map(_six_digits) for name in floats})


def _six_digits(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def _counts(predictions: Predictions) -> Tree:
    return {
        "recordings": len(predictions.recordings),
        "segments": len(predictions.segment),
        "patients": int(predictions.recordings["patient"].nunique()),
        "recordings_without_scored_label": int((~predictions.labels.any(axis=1)).sum()),
    }


def recording_table(test: Predictions, thresholds: Thresholds) -> pd.DataFrame:
    """Return predictions.csv: one row a recording and class."""
    return _entries(test.recordings, scored_units(test)[RECORDING], thresholds)


def segment_table(test: Predictions, thresholds: Thresholds) -> pd.DataFrame:
    """Return segments.csv: one row a segment and class."""
    rows = test.recordings.iloc[test.recording].assign(segment=test.segment)
    return _entries(rows, scored_units(test)[SEGMENT], thresholds)


def _entries(rows: pd.DataFrame, scored: Scored, thresholds: Thresholds) -> pd.DataFrame:
    n_rows, n_classes = scored.labels.shape
    table = rows.drop(columns="patient").iloc[np.repeat(np.arange(n_rows), n_classes)]
    columns = {
        "class": np.tile(CLASSES, n_rows),
        "abbreviation": np.tile(ABBREVIATIONS, n_rows),
        "label": scored.labels.ravel().astype(np.int64),
        "probability": scored.probabilities.ravel(),
    }
    for way in WAYS:
        name = "decision" if way == FIXED else f"decision_{way}"
        decisions = decide(scored.probabilities, thresholds[way])
        columns[name] = decisions.ravel().astype(np.int64)
    return rounded(table.assign(**columns))


def class_table(test: Predictions, thresholds: Mapping[str, Thresholds]) -> pd.DataFrame:
    """Return per_class.csv: one row a unit and class, absent classes with empty scores."""
    tables = []
    for unit, rows in scored_units(test).items():
        decisions = decide(rows.probabilities, thresholds[unit][FIXED])
        both = (rows.labels & decisions).sum(axis=0)
        table = pd.DataFrame({"unit": unit, "class": CLASSES, "abbreviation": ABBREVIATIONS})
        table["positives"] = rows.labels.sum(axis=0)
        table["predicted"] = decisions.sum(axis=0)
        table["auroc"] = auroc_per_class(rows.labels, rows.probabilities)
        table["auprc"] = auprc_per_class(rows.labels, rows.probabilities)
        table["f_measure"] = f_per_class(rows.labels, decisions)
        table["precision"] = divide(both, decisions.sum(axis=0))
        table["recall"] = divide(both, rows.labels.sum(axis=0))
        tuned = decide(rows.probabilities, thresholds[unit][CLASS_TUNED])
        table["f_measure_class_tuned"] = f_per_class(rows.labels, tuned)
        tables.append(table)
    return rounded(pd.concat(tables))


def threshold_table(valid: Predictions, thresholds: Mapping[str, Thresholds]) -> pd.DataFrame:
    """Return thresholds.csv: what was tuned on valid, with valid's positives."""
    tables = []
    for unit, rows in scored_units(valid).items():
        table = pd.DataFrame({"unit": unit, "class": CLASSES, "abbreviation": ABBREVIATIONS})
        table["valid_positives"] = rows.labels.sum(axis=0)
        tables.append(table.assign(**thresholds[unit]))
    return rounded(pd.concat(tables))


def calibration_table(test: Predictions, bins: int) -> pd.DataFrame:
    """Return calibration.csv: the reliability curve of both units."""
    tables = [
        reliability_curve(rows.labels, rows.probabilities, bins).assign(unit=unit)
        for unit, rows in scored_units(test).items()
    ]
    table = pd.concat(tables)
    return rounded(table[["unit", *table.columns.drop("unit")]])


def lead_rows(leads: int, kept: tuple[int, ...], found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one lead set's rows of leads.csv: the headline numbers of both units."""
    names = " ".join(LEADS[lead] for lead in kept)
    return wide(found).assign(leads=leads, names=names)


def source_table(
    test: Predictions,
    thresholds: Mapping[str, Thresholds],
    weights: Weights,
    params: EvaluateParams,
) -> pd.DataFrame:
    """Return sources.csv: counts and headline numbers of every source by itself."""
    tables = []
    for source in sorted(test.recordings["source"].unique()):
        part = part_of(test, (test.recordings["source"] == source).to_numpy())
        table = wide(headlines(part, thresholds, weights, params)).assign(source=source)
        tables.append(table.assign(**_counts(part)))
    return leading(pd.concat(tables), "source", *_counts(test))


def wide(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row a unit, with columns NAME, NAME_low, NAME_high."""
    rows = []
    for unit, table in found.items():
        row: dict[str, object] = {"unit": unit}
        for name, values in table.iterrows():
            row |= {str(name): values["value"]}
            row |= {f"{name}_{end}": values[end] for end in ("low", "high")}
        rows.append(row)
    return pd.DataFrame(rows)


def leading(table: pd.DataFrame, *first: str) -> pd.DataFrame:
    """Return a table with some columns in front, rounded."""
    return rounded(table[[*first, *table.columns.drop(list(first))]])
