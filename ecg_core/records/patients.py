"""Whose recording it is: PTB-XL's table of patients, and its recordings in the Challenge's tree."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ecg_core.manifest import PTBXL_PATIENT, RECORDING_PATIENT
from ecg_core.records.raw import PTBXL, PTBXL_SOURCE, BadRawFiles

_OWN = re.compile(r"(\d{5})_[hl]r")
_IN_CHALLENGE = re.compile(r"HR(\d{5})")
_SEXES = {0.0: "male", 1.0: "female"}


@dataclass(frozen=True)
class PtbxlRow:
    """What PTB-XL's table says of a recording; age in years (300: over 89)."""

    patient_id: int | None
    fold: int | None
    age: float | None
    sex: str


def ecg_id_of(source: str, record_id: str) -> int | None:
    """Return PTB-XL's ecg_id of a record of either tree; None for a record of another source."""
    pattern = {PTBXL_SOURCE: _OWN, PTBXL: _IN_CHALLENGE}.get(source)
    match = pattern.fullmatch(record_id) if pattern else None
    return int(match[1]) if match else None


def patient_of(
    source: str, record_id: str, table: Mapping[int, PtbxlRow]
) -> tuple[str, str, int | None]:
    """Return the key of a record's patient, what kind of key it is, and PTB-XL's fold."""
    ecg_id = ecg_id_of(source, record_id)
    row = table.get(ecg_id) if ecg_id is not None else None
    if row is None or row.patient_id is None:
        return f"{source}/{record_id}", RECORDING_PATIENT, row.fold if row else None
    return f"{PTBXL}/patient/{row.patient_id}", PTBXL_PATIENT, row.fold


def read_ptbxl_table(path: Path) -> dict[int, PtbxlRow]:
    """Return PTB-XL's table by ecg_id; raise BadRawFiles when a column is missing or no number."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    numbers = {}
    for column in ("ecg_id", "patient_id", "strat_fold", "age", "sex"):
        if column not in table:
            raise BadRawFiles(f"{path}: expected a column {column}, found none")
        try:
            numbers[column] = pd.to_numeric(table[column].replace("", None)).astype("float64")
        except ValueError as error:
            raise BadRawFiles(f"{path}: {column}: expected numbers, found: {error}") from None
    rows = zip(*(numbers[column].tolist() for column in numbers), strict=True)
    return {
        int(ecg_id): PtbxlRow(
            patient_id=_integer(patient),
            fold=_integer(fold),
            age=None if pd.isna(age) else age,
            sex=_SEXES.get(sex, ""),
        )
        for ecg_id, patient, fold, age, sex in rows
        if not pd.isna(ecg_id)
    }


def _integer(value: float) -> int | None:
    return None if pd.isna(value) else int(value)
