"""Write an output whole or not at all: beside its place first, then renamed."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, and its folder where there is none; another reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_bytes(content)
    beside.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write a JSON file whole or not at all; raise ValueError for NaN, which is not JSON."""
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV file without row numbers whole or not at all, with the same bytes everywhere."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))
