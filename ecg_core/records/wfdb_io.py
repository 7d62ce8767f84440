"""Signals of WFDB records: format 16 in a .dat, or in the Challenge's MATLAB v4 .mat."""

import hashlib
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ecg_core.leads import LEADS
from ecg_core.manifest import Finding, Reason, RefusedRecord
from ecg_core.records.header import Header, lead_order, read_header

Digital = npt.NDArray[np.int16]

NO_VALUE = -32768
"""What format 16 stores where there is no sample: the NaN of integers (signal-5.htm)."""

_POINTER = b"version https://git-lfs"
_INT16_LITTLE_ENDIAN = 30
_MATRIX_NAME = b"val\0"
_OFFSETS = {".mat": 24, ".dat": 0}
"""The byte at which the samples begin."""


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
    offset = header.leads[0].offset
    if offset != _OFFSETS[path.suffix]:
        raise _not_whole(f"samples from byte {_OFFSETS[path.suffix]}", f"from byte {offset}")
    return read_samples(path, len(header.leads), header.n_samples)


def read_samples(path: Path, n_leads: int, n_samples: int) -> Digital:
    """Return a signal file that holds so many leads and samples, shape (lead, sample).

    Raises RefusedRecord when it is missing or is another file.
    """
    offset = _OFFSETS[path.suffix]
    size = offset + 2 * n_leads * n_samples
    require_signal_file(path, size)
    content = _read_start(path, size)
    if len(content) != size:
        raise _not_whole(f"{size} bytes", f"{len(content)} bytes")
    if content.startswith(_POINTER):
        raise _not_whole(f"{size} bytes", f"a Git-LFS pointer of {size} bytes")
    if offset:
        _require_matrix(content, n_leads, n_samples)
    samples = np.frombuffer(content, "<i2", offset=offset)
    return np.ascontiguousarray(samples.reshape(n_samples, n_leads).T, np.int16)


def require_signal_file(path: Path, size: int | None) -> None:
    """Raise RefusedRecord unless a file is there and has its size in bytes.

    Without a size (the header is unreadable) any will do but 0 and that of a Git-LFS pointer.
    """
    try:
        about = path.stat()
    except OSError as error:
        raise _no_signal(path, error.strerror or str(error)) from None
    if not stat.S_ISREG(about.st_mode):
        raise _no_signal(path, "something that is no file")
    if about.st_size == size:
        return
    expected = "a signal" if size is None else f"{size} bytes"
    if _read_start(path, len(_POINTER)) == _POINTER:
        raise _not_whole(expected, f"a Git-LFS pointer of {about.st_size} bytes")
    if size is not None or not about.st_size:
        raise _not_whole(expected, f"{about.st_size} bytes")


def standard_leads(leads: Digital, names: tuple[str, ...]) -> Digital:
    """Put leads into the standard order; raise RefusedRecord when one of the twelve is missing."""
    order = lead_order(names)
    if order is None:
        found = " ".join(name or "?" for name in names)
        raise RefusedRecord([Finding(Reason.LEADS, " ".join(LEADS), found[:80])])
    return leads if order == tuple(range(len(leads))) else leads[list(order)]


def signal_sha256(signal: Digital) -> str:
    """Return the SHA-256 of a signal's samples, lead by lead, whatever file they came from."""
    return hashlib.sha256(np.ascontiguousarray(signal, "<i2").data).hexdigest()


def signal_checksums(leads: Digital) -> list[int]:
    """Return WFDB's checksum of each lead: the sum of its samples, modulo 65536 (header-5.htm)."""
    # 16 bits that wrap around are this sum, and several times faster than wider ones
    totals: list[int] = leads.view(np.uint16).sum(axis=1, dtype=np.uint16).tolist()
    return totals


def read_recording(stem: Path) -> Recording:
    """Read a record, given as its path without a suffix; raise RefusedRecord if it cannot be."""
    header = read_header(stem.with_name(stem.name + ".hea"))
    leads = read_leads(stem.with_name(header.leads[0].file), header)
    signal = standard_leads(leads, header.names())
    return Recording(signal, np.array(header.gains(), np.float32), header.fs)


def _require_matrix(content: bytes, n_leads: int, n_samples: int) -> None:
    """Refuse a .mat that is not one int16 matrix named val (MATLAB's Level 4 format)."""
    expected = (_INT16_LITTLE_ENDIAN, n_leads, n_samples, 0, len(_MATRIX_NAME))
    found = struct.unpack("<5i", content[:20])
    if found != expected or content[20:24] != _MATRIX_NAME:
        raise _not_whole(
            f"MATLAB v4 {expected} {_MATRIX_NAME!r}", f"{found} {content[20:24]!r} at the start"
        )


def _read_start(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise _no_signal(path, error.strerror or str(error)) from None


def _no_signal(path: Path, found: str) -> RefusedRecord:
    return RefusedRecord([Finding(Reason.NO_SIGNAL, path.name, found)])


def _not_whole(expected: str, found: str) -> RefusedRecord:
    return RefusedRecord([Finding(Reason.TRUNCATED, expected, found)])
