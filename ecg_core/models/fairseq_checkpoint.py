"""placeholder"""

from pathlib import Path

from ecg_core.params import Section


class PretrainedParams(Section):
    """Section `pretrained`."""

    path: str | None


def import_pretrained(path: Path, target: Path) -> None:
    """Import."""
