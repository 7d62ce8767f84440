"""The 26 scored classes of the PhysioNet/CinC Challenge 2021, in the order of its weights.csv."""

import csv
import hashlib
from pathlib import Path

WEIGHTS_FILE = Path(__file__).with_name("weights.csv")
WEIGHTS_SHA256 = "668cb04555a97e8977488cb4bb6088d0d2bf9e59557945deedf29d5065c14d2b"
"""Of weights.csv in github.com/physionetchallenges/evaluation-2021, which has 26 merged classes."""

SINUS_RHYTHM = "426783006"


def _read_names() -> tuple[str, ...]:
    content = WEIGHTS_FILE.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(f"{WEIGHTS_FILE}: expected SHA-256 {WEIGHTS_SHA256}, found {found}")
    header = next(csv.reader(content.decode().splitlines()))
    return tuple(name.strip() for name in header[1:])


CLASSES = _read_names()
"""Class names: one SNOMED code, or the merged codes of one class joined by `|`."""

CLASS_OF_CODE = {code: row for row, name in enumerate(CLASSES) for code in name.split("|")}
"""The position of a SNOMED code's class in `CLASSES`; codes that are not scored are absent."""

SINUS_CLASS = CLASS_OF_CODE[SINUS_RHYTHM]

ABBREVIATIONS = (
    "AF", "AFL", "BBB", "Brady", "LBBB", "RBBB", "IAVB", "IRBBB", "LAD", "LAnFB", "LPR", "LQRSV",
    "LQT", "NSIVCB", "NSR", "PAC", "PR", "PRWP", "PVC", "QAb", "RAD", "SA", "SB", "STach", "TAb",
    "TInv",
)  # fmt: skip
"""The Challenge's abbreviations (dx_mapping_scored.csv) in the order of `CLASSES`."""
