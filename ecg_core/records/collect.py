"""Collect the manifest: all records examined, each signal once, every refusal with its reasons."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd

from ecg_core.manifest import (
    MANIFEST_COLUMNS,
    REFUSED_COLUMNS,
    UNUSED_COLUMNS,
    Finding,
    Reason,
    RefusedRecord,
)
from ecg_core.records.checks import Examined, examine_all, manifest_row
from ecg_core.records.header import Header
from ecg_core.records.parallel import in_chunks, in_processes
from ecg_core.records.patients import PtbxlRow, ecg_id_of, patient_of, read_ptbxl_table
from ecg_core.records.raw import (
    PTBXL,
    PTBXL_TABLE,
    BadRawFiles,
    DataParams,
    RecordFiles,
    find_records,
    unused_versions,
)

_CHUNK = 100


@dataclass
class Collected:
    """The manifest and the refusals; `twins` of the refusals are PTB-XL's second appearance."""

    manifest: pd.DataFrame
    refused: pd.DataFrame
    unused: pd.DataFrame
    twins: int

    def refused_fraction(self) -> float:
        """Return the fraction of records that are refused; a twin is no defect."""
        total = len(self.manifest) + len(self.refused) - self.twins
        return (len(self.refused) - self.twins) / total if total else 0.0


@dataclass
class _Taken:
    """Which names, recordings and signals are in the manifest already, and as which record."""

    names: dict[str, str] = field(default_factory=dict)
    ecg_ids: dict[int, str] = field(default_factory=dict)
    signals: dict[str, str] = field(default_factory=dict)


def collect(raw: Path, sums: Mapping[str, str], params: DataParams) -> Collected:
    """Examine every verified record and return which are kept and which are refused.

    What comes first in `data.datasets`, and in it by source and name, takes a signal.
    """
    table = _ptbxl_table(raw, sums)
    examine = partial(examine_all, raw, params)
    chunks = in_chunks(find_records(sums, params.datasets), _CHUNK)
    taken = _Taken()
    rows: list[dict[str, object]] = []
    refused: list[dict[str, str]] = []
    twins = 0
    for results in in_processes(examine, chunks, params.workers, "manifest"):
        for examined in results:
            again, is_twin = _taken_already(examined, taken)
            findings = [*examined.findings, *again]
            if findings or examined.header is None:
                refused.append(_refusal(examined.files, findings))
                twins += is_twin and not examined.findings
            else:
                rows.append(_row(examined, examined.header, table))
                _take(examined, taken)
    unused = _sorted(unused_versions(raw, sums, params), UNUSED_COLUMNS)
    return Collected(_manifest(rows), _sorted(refused, REFUSED_COLUMNS), unused, twins)


def _ptbxl_table(raw: Path, sums: Mapping[str, str]) -> dict[int, PtbxlRow]:
    names = [name for name in sums if name.startswith(f"{PTBXL}/") and name.count("/") == 2]
    names = [name for name in names if name.endswith(f"/{PTBXL_TABLE}")]
    table: dict[int, PtbxlRow] = {}
    for name in sorted(names):
        path = raw / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        if found != sums[name]:
            raise BadRawFiles(
                f"{path}: expected SHA-256 {sums[name]}, found {found}; "
                "run python -m stages.download"
            )
        table.update(read_ptbxl_table(path))
    return table


def _taken_already(examined: Examined, taken: _Taken) -> tuple[list[Finding], bool]:
    """Return the finding that a name, recording or signal is taken, and whether it is a twin."""
    files = examined.files
    ecg_id = ecg_id_of(files.source, files.record_id)
    name = f"{files.source}/{files.record_id}"
    if name in taken.names:
        found = f"{name} is {taken.names[name]} already"
        return [Finding(Reason.TAKEN, "a name of its own", found)], False
    if ecg_id is not None and ecg_id in taken.ecg_ids:
        found = f"ecg_id {ecg_id} taken as {taken.ecg_ids[ecg_id]}"
        return [Finding(Reason.TAKEN, "a recording of its own", found)], True
    if examined.sha256 and examined.sha256 in taken.signals:
        found = f"that of {taken.signals[examined.sha256]}"
        return [Finding(Reason.TAKEN, "a signal of its own", found)], False
    return [], False


def _take(examined: Examined, taken: _Taken) -> None:
    files = examined.files
    name = f"{files.source}/{files.record_id}"
    taken.names[name] = files.path
    taken.signals[examined.sha256] = name
    ecg_id = ecg_id_of(files.source, files.record_id)
    if ecg_id is not None:
        taken.ecg_ids[ecg_id] = name


def _row(examined: Examined, header: Header, table: Mapping[int, PtbxlRow]) -> dict[str, object]:
    row = manifest_row(examined, header)
    source, record_id = examined.files.source, examined.files.record_id
    ecg_id = ecg_id_of(source, record_id)
    known = table.get(ecg_id) if ecg_id is not None else None
    if known and row["age"] is None:
        row["age"] = known.age
    if known and not row["sex"]:
        row["sex"] = known.sex
    patient, kind, fold = patient_of(source, record_id, table)
    return {**row, "patient": patient, "patient_kind": kind, "ecg_id": ecg_id, "fold": fold}


def _manifest(rows: list[dict[str, object]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(MANIFEST_COLUMNS))
    for column, kind in MANIFEST_COLUMNS.items():
        table[column] = table[column].astype(pd.api.types.pandas_dtype(kind))
    return table.sort_values(["source", "record_id"], ignore_index=True)


def _refusal(files: RecordFiles, findings: list[Finding]) -> dict[str, str]:
    ordered = RefusedRecord(findings).findings
    return {
        "source": files.source,
        "record_id": files.record_id,
        "path": files.path,
        "reason": ordered[0].reason.value,
        "reasons": "; ".join(finding.reason.value for finding in ordered),
        "expected": "; ".join(_one_line(finding.expected) for finding in ordered),
        "found": "; ".join(_one_line(finding.found) for finding in ordered),
    }


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _sorted(rows: Iterable[Mapping[str, str]], columns: Iterable[str]) -> pd.DataFrame:
    table = pd.DataFrame(list(rows), columns=list(columns), dtype="str")
    return table.sort_values(["source", "record_id", "path"], ignore_index=True)
