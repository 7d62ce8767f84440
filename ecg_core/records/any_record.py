"""Any WFDB record as the model wants it: other formats, lead orders, rates, lengths, fewer leads.

The pipeline itself reads with wfdb_io.py alone, which knows what its data sets contain and refuses
the rest; here the wfdb package reads what that reader does not know.
"""

from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import wfdb
from jaxtyping import Float
from scipy.signal import resample_poly

from ecg_core.leads import LEADS
from ecg_core.manifest import Finding, Reason, RefusedRecord
from ecg_core.records.header import read_header
from ecg_core.records.wfdb_io import NO_VALUE, read_leads
from ecg_core.segments import samples_at

SMALLEST_MV, SMALLEST_LIMB_MV, LARGEST_MV = 0.5, 0.1, 10.0
"""What 99 % of the largest lead's samples span; the second where only limb leads are there.

Outside, the gain is wrong: with the gains of the Challenge's 2020 release Georgia's recordings span
0.3 to 0.5 mV and PTB-XL's 11 mV, where those of 2021 span 0.8 to 9.0 mV.
"""

FIRST_CHEST_LEAD = 6
"""The position of V1."""

_PER_MILLIVOLT = {"mv": 1.0, "uv": 1e3, "µv": 1e3, "v": 1e-3}
_LARGEST_FACTOR = 100_000
_WHAT_WFDB_RAISES = (ValueError, OSError, LookupError, TypeError, AttributeError, ArithmeticError)
"""Of a file that is not what it says: it runs into it wherever its parser happens to be."""


@dataclass(frozen=True)
class AnyRecord:
    """A recording in the standard order of leads; leads that it has not are zero."""

    name: str
    signal_mv: Float[np.ndarray, "lead sample"]
    fs: float
    leads: tuple[int, ...]
    """The leads that it has, as positions in `LEADS`."""

    @property
    def seconds(self) -> float:
        """Its length."""
        return float(self.signal_mv.shape[1] / self.fs)


def read_any(path: Path) -> AnyRecord:
    """Read a record, given with or without a suffix; raise RefusedRecord, saying why not."""
    stem = path.with_suffix("") if path.suffix in (".hea", ".dat", ".mat") else path
    try:
        header = read_header(stem.with_name(f"{stem.name}.hea"))
        digital = read_leads(stem.with_name(header.leads[0].file), header).astype(np.float64)
        digital[digital == NO_VALUE] = np.nan
        names, fs = [lead.name for lead in header.leads], header.fs
        zeros = np.array([[lead.baseline] for lead in header.leads])
        gains = np.array([[lead.gain] for lead in header.leads])
        if not (gains > 0).all():
            raise _refused(Reason.GAIN, "gains above 0", f"{gains.min():g}/mV")
        signal_mv = (digital - zeros) / gains
    except RefusedRecord as refusal:
        if refusal.findings[0].reason is not Reason.HEADER or not _has_header(stem):
            raise
        names, signal_mv, fs = _read_with_wfdb(stem, refusal)
    return _in_standard_order(stem.name, names, signal_mv, fs)


def _has_header(stem: Path) -> bool:
    return stem.with_name(f"{stem.name}.hea").is_file()


def _read_with_wfdb(stem: Path, before: RefusedRecord) -> tuple[list[str], np.ndarray, float]:
    try:
        record = wfdb.rdrecord(str(stem))
    except _WHAT_WFDB_RAISES as error:
        own = before.findings[0]
        found = f"{own.found}; wfdb: {error}"
        raise _refused(Reason.HEADER, own.expected, found) from None
    if record.p_signal is None or not record.fs:
        raise _refused(Reason.HEADER, "signals and their fs", "none")
    units = [str(unit).lower() for unit in record.units]
    unknown = [unit for unit in units if unit not in _PER_MILLIVOLT]
    if len(unknown) == len(units):
        raise _refused(Reason.GAIN, "leads in mV, uV or V", ", ".join(unknown))
    scale = np.array([[1 / _PER_MILLIVOLT.get(unit, np.inf)] for unit in units])
    pairs = zip(record.sig_name, units, strict=True)
    known = [str(name or "") if unit in _PER_MILLIVOLT else "" for name, unit in pairs]
    return known, record.p_signal.T * scale, float(record.fs)


def _in_standard_order(
    name: str, names: list[str], signal_mv: Float[np.ndarray, "found sample"], fs: float
) -> AnyRecord:
    lower = [lead.lower() for lead in names]
    leads = tuple(position for position, lead in enumerate(LEADS) if lead.lower() in lower)
    if not leads:
        raise _refused(Reason.LEADS, f"one of {' '.join(LEADS)}", " ".join(names)[:80] or "none")
    twice = [LEADS[lead] for lead in leads if lower.count(LEADS[lead].lower()) > 1]
    if twice:
        raise _refused(Reason.LEADS, "each lead once", f"{' '.join(twice)} more than once")
    ordered = np.zeros((len(LEADS), signal_mv.shape[1]), dtype=np.float32)
    chosen = signal_mv[[lower.index(LEADS[lead].lower()) for lead in leads]]
    if np.isnan(chosen).any():
        found = f"{int(np.isnan(chosen).sum())} without one"
        raise _refused(Reason.NAN, "a value in every sample", found)
    _require_plausible(chosen, has_chest=max(leads) >= FIRST_CHEST_LEAD)
    ordered[list(leads)] = chosen
    return AnyRecord(name, ordered, fs, leads)


def _require_plausible(signal_mv: Float[np.ndarray, "found sample"], has_chest: bool) -> None:
    if not np.ptp(signal_mv, axis=1).any():
        raise _refused(Reason.ZERO, "a lead that is not flat", "flat leads only")
    low, high = np.quantile(signal_mv, [0.005, 0.995], axis=1)
    span, smallest = float((high - low).max()), SMALLEST_MV if has_chest else SMALLEST_LIMB_MV
    if not smallest <= span <= LARGEST_MV:
        expected = f"a largest lead that spans {smallest:g} to {LARGEST_MV:g} mV"
        raise _refused(Reason.GAIN, expected, f"{span:.3g} mV")


def require_leads(record: AnyRecord, wanted: Collection[int]) -> AnyRecord:
    """Return the record; raise RefusedRecord when it has none of the leads that a model knows."""
    if not set(record.leads) & set(wanted):
        expected = f"one of {' '.join(LEADS[lead] for lead in sorted(wanted))}"
        raise _refused(Reason.LEADS, expected, " ".join(LEADS[lead] for lead in record.leads))
    return record


def segments_of(
    record: AnyRecord, fs: int, seconds: float, method: Literal["polyphase", "linear"]
) -> Float[np.ndarray, "segment lead sample"]:
    """Return the record's whole segments at the model's fs; the tail is dropped (method.md 4.1).

    Raises RefusedRecord when it is shorter than one.
    """
    signal_mv, length = record.signal_mv, round(seconds * fs)
    n_samples = samples_at(signal_mv.shape[1], record.fs, fs)
    if n_samples < length:
        raise _refused(Reason.SHORT, f"{seconds:g} s", f"{record.seconds:.3f} s")
    if record.fs != fs:
        signal_mv = _resample(signal_mv, n_samples, fs / record.fs, method)
    count = n_samples // length
    cut = signal_mv[:, : count * length].reshape(len(LEADS), count, length)
    return np.ascontiguousarray(cut.transpose(1, 0, 2), dtype=np.float32)


def _resample(
    signal_mv: Float[np.ndarray, "lead sample"], n_samples: int, ratio: float, method: str
) -> Float[np.ndarray, "lead {n_samples}"]:
    """Resample as the pipeline does (signal.py), without its rounding to integers."""
    if method == "linear":
        places = np.linspace(0, n_samples - 1, signal_mv.shape[1])
        return np.stack([np.interp(np.arange(n_samples), places, lead) for lead in signal_mv])
    factor = Fraction(ratio).limit_denominator(_LARGEST_FACTOR)
    up, down = factor.numerator, factor.denominator
    resampled = resample_poly(signal_mv.astype(np.float64), up, down, axis=1, padtype="line")
    missing = max(0, n_samples - resampled.shape[1])
    return np.pad(resampled, ((0, 0), (0, missing)), mode="edge")[:, :n_samples]


def _refused(reason: Reason, expected: str, found: str) -> RefusedRecord:
    return RefusedRecord([Finding(reason, expected, found)])
