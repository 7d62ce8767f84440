"""Tables as CSV files: written whole or not at all, read checked."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from ecg_core.outputs import write_text
from ecg_core.refusal import Refusal


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV file without row numbers whole or not at all, with the same bytes everywhere."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def read_table(
    path: Path, columns: Collection[str], stage: str, bad: type[Refusal]
) -> pd.DataFrame:
    """Return a stage's CSV file as texts; raise `bad` where it is missing or has other columns."""
    if not path.is_file():
        raise bad(
            f"{path}: expected the table of {stage}, found none; run python -m stages.{stage}"
        )
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(table.columns) != list(columns):
        found = ", ".join(table.columns)
        raise bad(f"{path}: expected columns {', '.join(columns)}, found {found}")
    return table
