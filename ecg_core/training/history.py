"""What a training leaves behind beside its model: a row an epoch, and the last row as metrics."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ecg_core.outputs import write_json
from ecg_core.tables import write_csv

WHOLE = ("epoch", "updates", "segments", "best_epoch", "patients")
"""Columns that count."""


def write_history(
    folder: Path,
    stage: str,
    rows: Sequence[Mapping[str, float]],
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Write `history.csv` and, of the last row or of `metrics`, `metrics.json`.

    The JSON is {stage: {column: value}}; what is not defined (NaN) is left out of it.
    """
    table = pd.DataFrame(list(rows)).map(_six_digits)
    write_csv(folder / "history.csv", table.astype({c: int for c in WHOLE if c in table}))
    told = metrics if metrics is not None else rows[-1] if rows else {}
    values = {
        name: int(value) if name in WHOLE else _six_digits(value)
        for name, value in told.items()
        if not math.isnan(value)
    }
    write_json(folder / "metrics.json", {stage: values})


def _six_digits(value: float) -> float:
    return float(f"{value:.6g}")
