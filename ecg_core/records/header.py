"""Headers of WFDB records (physionet.org/physiotools/wag/header-5.htm), fields read by key."""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ecg_core.leads import LEADS
from ecg_core.manifest import Finding, Reason, RefusedRecord

_RECORD = re.compile(r"(\S+) +(\d{1,3}) +(\d{1,6}(?:\.\d{1,9})?)(?:/\S+)? +(\d{1,10})(?: .*)?")
_FORMAT = re.compile(r"16(?:x1)?(?::0)?(?:\+(\d{1,9}))?")
_GAIN = re.compile(r"([-+]?[\d.]+(?:[eE][-+]?\d{1,3})?)(?:\(([-+]?\d{1,9})\))?(?:/(\S+))?")
_COMMENT = re.compile(r"#\s*(\w+)\s*:\s*(.*)")
_INTEGER = re.compile(r"[-+]?\d{1,12}")
_LONGEST = 100_000
_SLOWEST, _FASTEST = 50, 100_000
_PER_MILLIVOLT = {"mv": 1.0, "uv": 1e3, "v": 1e-3}
_NOTHING = ("", "unknown", "nan")
_POSITION = {lead.lower(): position for position, lead in enumerate(LEADS)}


@dataclass(frozen=True)
class LeadLine:
    """One lead of a header: where its samples are, and how many units a millivolt has."""

    file: str
    offset: int
    gain: float
    baseline: int
    checksum: int | None
    name: str


@dataclass(frozen=True)
class Header:
    """What is used of a header: fs in Hz, age in years, sex male/female, diagnoses as written."""

    fs: float
    n_samples: int
    leads: tuple[LeadLine, ...]
    age: float | None
    sex: str
    diagnoses: tuple[str, ...]

    def names(self) -> tuple[str, ...]:
        """Return the names of the leads as they are written, in the order of the file."""
        return tuple(lead.name for lead in self.leads)

    def gains(self) -> tuple[float, ...]:
        """Return the gains of the twelve standard leads in their order, () where one is missing."""
        return tuple(self.leads[place].gain for place in lead_order(self.names()) or ())


@lru_cache(maxsize=1024)
def lead_order(names: tuple[str, ...]) -> tuple[int, ...] | None:
    """Return where the standard leads stand among names, or None when one is not there once."""
    found = [_POSITION.get(name.lower(), -1) for name in names]
    if any(found.count(position) != 1 for position in range(len(LEADS))):
        return None
    return tuple(found.index(position) for position in range(len(LEADS)))


def unreadable(expected: str, found: str) -> RefusedRecord:
    """Return the refusal of a header that cannot be read; what was found is cut to a line."""
    short = repr(found if len(found) <= 80 else found[:80] + "…")
    return RefusedRecord([Finding(Reason.HEADER, expected, short)])


def read_header(path: Path) -> Header:
    """Read a header file; raise RefusedRecord when that is not possible."""
    if not path.is_file():
        raise unreadable("a header file", "no such file")
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except OSError as error:
        raise unreadable("a header file", error.strerror or str(error)) from None
    if len(content) > _LONGEST:
        raise unreadable(f"a header of at most {_LONGEST} bytes", f"more, {content[:40]!r}")
    # comments may hold any character; the fields are ASCII, which Latin-1 leaves alone
    return parse_header(content.decode("latin-1"), path.stem)


def parse_header(text: str, record_id: str) -> Header:
    """Parse a header's text; raise RefusedRecord when it is not one of this record."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    fields = [line for line in lines if not line.startswith("#")]
    match = _RECORD.fullmatch(" ".join(fields[0].split())) if fields else None
    if not match:
        raise unreadable("record, leads, fs and samples", lines[0] if lines else "")
    name, n_leads, fs, n_samples = match[1], int(match[2]), float(match[3]), int(match[4])
    if name.removesuffix(".mat") != record_id:
        raise unreadable(f"the record {record_id}", name)
    if not _SLOWEST <= fs <= _FASTEST or n_samples < 1 or n_leads < 1:
        raise unreadable(f"leads, an fs of {_SLOWEST} to {_FASTEST} Hz and samples", fields[0])
    if len(fields) - 1 != n_leads:
        raise unreadable(f"{n_leads} lines of leads", f"{len(fields) - 1} lines")
    leads = tuple(_parse_lead(line, record_id) for line in fields[1:])
    if len({(lead.file, lead.offset) for lead in leads}) != 1:
        raise unreadable("one signal file", ", ".join(sorted({lead.file for lead in leads})))
    comments = _comments(lines)
    return Header(
        fs=fs,
        n_samples=n_samples,
        leads=leads,
        age=_age(comments.get("age", [])),
        sex=_sex(comments.get("sex", [])),
        diagnoses=_diagnoses(comments.get("dx", [])),
    )


def _parse_lead(line: str, record_id: str) -> LeadLine:
    fields = line.split(maxsplit=8)
    offset = _offset(fields[1]) if len(fields) > 1 else None
    if offset is None:
        raise unreadable("a file and format 16 for each lead", line)
    if fields[0] not in (f"{record_id}.mat", f"{record_id}.dat"):
        raise unreadable(f"the signal file {record_id}.mat or .dat", fields[0])
    zero = fields[4] if len(fields) > 4 else "0"
    scale = _scale(fields[2], zero) if len(fields) > 2 else None
    if scale is None:
        raise unreadable("a gain per mV, uV or V and an ADC zero", line)
    checksum = fields[6] if len(fields) > 6 else None
    if checksum is not None and not _INTEGER.fullmatch(checksum):
        raise unreadable("a checksum", line)
    return LeadLine(
        file=fields[0],
        offset=offset,
        gain=scale[0],
        baseline=scale[1],
        checksum=None if checksum is None else int(checksum),
        name=fields[8] if len(fields) > 8 else "",
    )


# all leads of most records say the same here: what a text means is worked out once
@lru_cache(maxsize=1024)
def _offset(form: str) -> int | None:
    """Return the byte at which the samples begin, None for a format other than 16."""
    match = _FORMAT.fullmatch(form)
    return int(match[1] or 0) if match else None


@lru_cache(maxsize=1024)
def _scale(gain: str, zero: str) -> tuple[float, int] | None:
    """Return digital units per millivolt and the digital value of 0 mV, None if these are none."""
    match = _GAIN.fullmatch(gain)
    if not match or not _INTEGER.fullmatch(zero):
        return None
    per_millivolt = _PER_MILLIVOLT.get((match[3] or "mV").lower())
    try:
        units = float(match[1])
    except ValueError:
        return None
    if per_millivolt is None or not math.isfinite(units):
        return None
    return units * per_millivolt, int(match[2] if match[2] is not None else zero)


def _comments(lines: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in lines:
        match = _COMMENT.fullmatch(line)
        if match:
            found.setdefault(match[1].lower(), []).append(match[2].strip())
    return found


def _age(values: list[str]) -> float | None:
    for value in values:
        if re.fullmatch(r"\d{1,3}(\.\d{1,6})?", value):
            return float(value)
    return None


def _sex(values: list[str]) -> str:
    known = {"male": "male", "m": "male", "female": "female", "f": "female"}
    return next((known[value.lower()] for value in values if value.lower() in known), "")


def _diagnoses(values: list[str]) -> tuple[str, ...]:
    codes = [code for value in values for code in re.split(r"[,;\s]+", value)]
    return tuple(dict.fromkeys(code for code in codes if code.lower() not in _NOTHING))
