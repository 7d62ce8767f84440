"""From SNOMED CT codes to the scored classes."""

import re
from collections.abc import Iterable

from ecg_core.classes import CLASS_OF_CODE, CLASSES

_SNOMED = re.compile(r"[1-9][0-9]{5,17}")


def is_snomed(code: str) -> bool:
    """Return whether a code looks like a SNOMED CT identifier: 6 to 18 digits, no leading 0."""
    return _SNOMED.fullmatch(code) is not None


def scored_classes(codes: Iterable[str]) -> tuple[str, ...]:
    """Return the scored classes that any of the codes belongs to, in the order of `CLASSES`."""
    positions = {CLASS_OF_CODE[code] for code in codes if code in CLASS_OF_CODE}
    return tuple(CLASSES[position] for position in sorted(positions))
