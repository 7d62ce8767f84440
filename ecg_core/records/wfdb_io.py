"""Signals of WFDB records: format 16 in a .dat, or in the Challenge's MATLAB v4 .mat."""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ecg_core.leads import LEADS
from ecg_core.manifest import Finding, Reason, RefusedRecord
from ecg_core.records.header import Header, read_header

Digital = npt.NDArray[np.int16]

NO_VALUE = -32768
"""What format 16 stores where there is no sample: the NaN of integers (signal-5.htm)."""

_POINTER = b"version https://git-lfs"
_INT16_LITTLE_ENDIAN = 30
_MATRIX_NAME = b"val\0"


@dataclass(frozen=True)
class Recording:
    """A signal in digital units, shape (lead, sample), leads I to V6; gains per millivolt; Hz."""

    signal: Digital
    gains: npt.NDArray[np.float32]
    fs: float


def read_leads(path: Path, header: Header) -> Digital:
    """Return all leads of a signal file in its own order, shape (lead, sample).

    Raises RefusedRecord when the file is missing, or is not what the header says.
    """
    n_leads, offset = len(header.leads), header.leads[0].offset
    size = offset + 2 * n_leads * header.n_samples
    require_signal_file(path, size)
    content = path.read_bytes()
    if path.suffix == ".mat":
        _require_matrix(content, n_leads, header.n_samples, offset)
    samples = np.frombuffer(content, "<i2", offset=offset)
    return np.ascontiguousarray(samples.reshape(header.n_samples, n_leads).T, np.int16)


def require_signal_file(path: Path, size: int | None) -> None:
    """Raise RefusedRecord unless a file is there, is no Git-LFS pointer and has its size in bytes.

    Without a size (the header is unreadable) any but 0 will do.
    """
    if not path.is_file():
        raise RefusedRecord([Finding(Reason.NO_SIGNAL, path.name, "no such file")])
    found = path.stat().st_size
    expected = "a signal" if size is None else f"{size} bytes"
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise _not_whole(expected, f"a Git-LFS pointer of {found} bytes")
    if found != size and (size is not None or not found):
        raise _not_whole(expected, f"{found} bytes")


def standard_leads(leads: Digital, header: Header) -> Digital:
    """Put leads into the standard order; raise RefusedRecord when one of the twelve is missing."""
    order = header.order()
    if order is None:
        names = " ".join(lead.name or "?" for lead in header.leads)
        raise RefusedRecord([Finding(Reason.LEADS, " ".join(LEADS), names[:80])])
    return leads if order == tuple(range(len(leads))) else leads[list(order)]


def signal_sha256(signal: Digital) -> str:
    """Return the SHA-256 of a signal's samples, lead by lead, whatever file they came from."""
    return hashlib.sha256(np.ascontiguousarray(signal, "<i2").data).hexdigest()


def read_recording(stem: Path) -> Recording:
    """Read a record, given as its path without a suffix; raise RefusedRecord if it cannot be."""
    header = read_header(stem.with_name(stem.name + ".hea"))
    leads = read_leads(stem.with_name(header.leads[0].file), header)
    signal = standard_leads(leads, header)
    order = header.order() or ()
    gains = np.array([header.leads[position].gain for position in order], np.float32)
    return Recording(signal, gains, header.fs)


def _require_matrix(content: bytes, n_leads: int, n_samples: int, offset: int) -> None:
    """Refuse a .mat that is not one int16 matrix named val (MATLAB's Level 4 format)."""
    expected = (_INT16_LITTLE_ENDIAN, n_leads, n_samples, 0, len(_MATRIX_NAME))
    found = struct.unpack("<5i", content[:20].ljust(20, b"\0"))
    if found != expected or content[20:24] != _MATRIX_NAME or offset != 24:
        raise _not_whole(
            f"MATLAB v4 {expected} {_MATRIX_NAME!r} before byte 24",
            f"{found} {content[20:24]!r} before byte {offset}",
        )


def _not_whole(expected: str, found: str) -> RefusedRecord:
    return RefusedRecord([Finding(Reason.TRUNCATED, expected, found)])
