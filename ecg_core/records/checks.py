"""What is checked of one record: every reason to refuse it is found, not the first alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecg_core.leads import LEADS
from ecg_core.manifest import Finding, Reason, RefusedRecord
from ecg_core.records.header import Header, lead_order, read_header
from ecg_core.records.labels import is_snomed, scored_classes
from ecg_core.records.raw import PTBXL_SOURCE, DataParams, RecordFiles
from ecg_core.records.wfdb_io import (
    NO_VALUE,
    Digital,
    read_leads,
    require_signal_file,
    signal_checksums,
    signal_sha256,
    standard_leads,
)
from ecg_core.segments import segments_in

CHALLENGE_GAIN = 1000.0
"""Units per millivolt in all of the Challenge's sources since the release of 2021."""


@dataclass(frozen=True)
class Examined:
    """A record after its checks: its findings, and what could be read of it."""

    files: RecordFiles
    findings: tuple[Finding, ...]
    header: Header | None = None
    sha256: str = ""
    checksums: tuple[int, ...] = ()
    flat_leads: tuple[str, ...] = ()


def examine_all(raw: Path, params: DataParams, records: Sequence[RecordFiles]) -> list[Examined]:
    """Examine several records, one after another."""
    return [examine(raw, params, files) for files in records]


def examine(raw: Path, params: DataParams, files: RecordFiles) -> Examined:
    """Check one record by itself; what concerns two records is not known here."""
    stem = raw / files.path
    try:
        header = read_header(stem.with_name(stem.name + ".hea"))
    except RefusedRecord as refusal:
        return Examined(files, (*refusal.findings, *_without_header(stem, files)))
    findings = _of_header(header, files, params)
    try:
        leads = read_leads(stem.with_name(header.leads[0].file), header)
    except RefusedRecord as refusal:
        return Examined(files, (*findings, *refusal.findings), header)
    findings += _of_checksums(leads, header)
    if lead_order(header.names()) is None:
        return Examined(files, (*findings, *_of_samples(leads)), header)
    signal = standard_leads(leads, header.names())
    flat = tuple(LEADS[lead] for lead in np.flatnonzero(_is_flat(signal)))
    findings += _of_samples(signal)
    return Examined(
        files=files,
        findings=tuple(findings),
        header=header,
        sha256=signal_sha256(signal),
        checksums=tuple(signal_checksums(signal)),
        flat_leads=flat,
    )


def manifest_row(examined: Examined, header: Header) -> dict[str, object]:
    """Return the columns of the manifest that one record alone decides."""
    files = examined.files
    return {
        "source": files.source,
        "record_id": files.record_id,
        "dataset": files.dataset,
        "path": files.path,
        "fs": header.fs,
        "n_samples": header.n_samples,
        "suffix": header.leads[0].file.rpartition(".")[2],
        "leads": " ".join(header.names()),
        "gains": " ".join(f"{gain:.10g}" for gain in header.gains()),
        "age": header.age,
        "sex": header.sex,
        "codes": " ".join(header.diagnoses),
        "classes": " ".join(scored_classes(header.diagnoses)),
        "flat_leads": " ".join(examined.flat_leads),
        "checksums": " ".join(map(str, examined.checksums)),
        "sha256": examined.sha256,
    }


def _without_header(stem: Path, files: RecordFiles) -> Sequence[Finding]:
    suffix = next((name for name in files.suffixes if name != "hea"), "mat or .dat")
    try:
        require_signal_file(stem.with_name(f"{stem.name}.{suffix}"), None)
    except RefusedRecord as refusal:
        return refusal.findings
    return ()


def _of_header(header: Header, files: RecordFiles, params: DataParams) -> list[Finding]:
    findings = _of_gains(header, files)
    text = [code for code in header.diagnoses if not is_snomed(code)]
    if text:
        found = ", ".join(text)[:80]
        findings.append(Finding(Reason.CODES, "SNOMED CT codes of 6 to 18 digits", found))
    if header.fs != params.fs and not params.resample:
        findings.append(Finding(Reason.RATE, f"{params.fs} Hz", f"{header.fs:g} Hz"))
    if segments_in(header.n_samples, header.fs, params.fs, params.seconds) < 1:
        found = f"{header.n_samples / header.fs:.3f} s"
        findings.append(Finding(Reason.SHORT, f"{params.seconds:g} s", found))
    if lead_order(header.names()) is None:
        names = " ".join(name or "?" for name in header.names())
        findings.append(Finding(Reason.LEADS, f"{' '.join(LEADS)}, each once", names[:80]))
    return findings


def _of_gains(header: Header, files: RecordFiles) -> list[Finding]:
    # nothing subtracts a baseline downstream, as in the original: where it is not 0, mV are wrong
    own_tree = files.source == PTBXL_SOURCE
    wrong = [
        lead
        for lead in header.leads
        if lead.baseline or (lead.gain <= 0 if own_tree else lead.gain != CHALLENGE_GAIN)
    ]
    if not wrong:
        return []
    found = sorted({f"{lead.gain:g}({lead.baseline})/mV" for lead in wrong})
    expected = "a gain above 0, baseline 0" if own_tree else f"{CHALLENGE_GAIN:g}(0)/mV"
    return [Finding(Reason.GAIN, expected, ", ".join(found)[:80])]


def _of_checksums(leads: Digital, header: Header) -> list[Finding]:
    for lead, total in zip(header.leads, signal_checksums(leads), strict=True):
        if lead.checksum is not None and lead.checksum % 65536 != total:
            expected = f"{lead.name} {lead.checksum % 65536}"
            return [Finding(Reason.CHECKSUM, expected, f"{lead.name} {total}")]
    return []


def _of_samples(leads: Digital) -> list[Finding]:
    findings = []
    missing = int(np.count_nonzero(leads == NO_VALUE))
    if missing:
        findings.append(Finding(Reason.NAN, "a value in every sample", f"{missing} without one"))
    if _is_flat(leads).all():
        found = f"{leads[0, 0]} throughout" if (leads == leads[0, 0]).all() else "flat leads only"
        findings.append(Finding(Reason.ZERO, "a lead that is not flat", found))
    return findings


def _is_flat(leads: Digital) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.asarray((leads == leads[:, :1]).all(axis=1))
