"""The manifest: one row a kept record; and the refusals: one row a record that is left out."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecg_core.classes import CLASSES
from ecg_core.refusal import Refusal
from ecg_core.tables import read_table, write_csv

MANIFEST_COLUMNS = {
    "source": "str",
    "record_id": "str",
    "dataset": "str",
    "path": "str",
    "fs": "float64",
    "n_samples": "int64",
    "suffix": "str",
    "leads": "str",
    "gains": "str",
    "age": "float64",
    "sex": "str",
    "codes": "str",
    "classes": "str",
    "patient": "str",
    "patient_kind": "str",
    "ecg_id": "Int64",
    "fold": "Int64",
    "flat_leads": "str",
    "checksums": "str",
    "sha256": "str",
}
"""Columns of the manifest and their types; texts hold lists separated by spaces, "" for none.

`path` is relative to the folder of raw files and has no suffix, the signal file's is `suffix`; `fs`
is in Hz; `leads` are named as in the file and in its order; `gains` are digital units per millivolt
of the twelve standard leads in their order; `age` is in years; `fold` is PTB-XL's strat_fold;
`checksums` (WFDB's, 16 bits a lead) and `sha256` are of the signal: int16, little-endian,
lead-first, leads in the standard order.
"""

UNUSED_COLUMNS = ("source", "record_id", "path", "why")
"""A version of a recording that is not used, which is no refusal: PTB-XL at 100 Hz."""

REFUSED_COLUMNS = ("source", "record_id", "path", "reason", "reasons", "expected", "found")

PTBXL_PATIENT = "ptb-xl patient_id"
"""The kind of patient key that names a person."""
RECORDING_PATIENT = "recording"
"""The kind of patient key of a recording whose patient is not published: it stands for itself."""


class Reason(StrEnum):
    """Why a record is refused, in the order in which one of several reasons leads."""

    HEADER = "unreadable header"
    NO_SIGNAL = "no signal file"
    TRUNCATED = "Git-LFS pointer or truncated signal"
    CHECKSUM = "checksum of the header not met"
    LEADS = "fewer than 12 named leads"
    NAN = "NaN"
    ZERO = "all-zero signal"
    GAIN = "wrong gain"
    CODES = "diagnoses not SNOMED codes"
    RATE = "other sampling rate"
    SHORT = "shorter than one segment"
    TAKEN = "same signal already taken"


REASONS = tuple(Reason)


@dataclass(frozen=True)
class Finding:
    """One reason to refuse a record, with what was expected and what was found."""

    reason: Reason
    expected: str
    found: str


class RefusedRecord(Exception):
    """A record that may be left out; it carries every finding, the leading one first."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        """Sort the findings into the order of `Reason`."""
        self.findings = sorted(findings, key=lambda finding: REASONS.index(finding.reason))
        super().__init__("; ".join(f"{f.reason}: {f.expected}, {f.found}" for f in self.findings))


class BadManifest(Refusal):
    """A manifest cannot be read."""


def write_manifest(path: Path, manifest: pd.DataFrame) -> None:
    """Write a manifest with its columns in order; fs without a needless `.0`."""
    table = manifest[list(MANIFEST_COLUMNS)].copy()
    for column in ("fs", "age"):
        table[column] = [_short_number(value) for value in table[column]]
    write_csv(path, table)


def read_manifest(path: Path) -> pd.DataFrame:
    """Return a manifest, one row a kept record; raise BadManifest when it is none."""
    table = read_table(path, MANIFEST_COLUMNS, "manifest", BadManifest)
    for column, kind in MANIFEST_COLUMNS.items():
        if kind != "str":
            numbers = pd.to_numeric(table[column].replace("", None))
            table[column] = numbers.astype(pd.api.types.pandas_dtype(kind))
    return table


def write_refused(path: Path, refused: pd.DataFrame) -> None:
    """Write the table of refusals."""
    write_csv(path, refused[list(REFUSED_COLUMNS)])


def label_matrix(manifest: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which of the 26 scored classes each record has, shape (record, class)."""
    labels = np.zeros((len(manifest), len(CLASSES)), bool)
    position = {name: column for column, name in enumerate(CLASSES)}
    for row, names in enumerate(manifest["classes"]):
        labels[row, [position[name] for name in names.split()]] = True
    return labels


def _short_number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.10g}"
