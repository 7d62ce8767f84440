"""Write an output whole or not at all: beside its place first, then renamed."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ecg_core.refusal import Refusal


class CannotWrite(Refusal):
    """A file cannot be written: the disk is full, the folder is read-only; what was there stays."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path beside to write to, which then takes the file's place; make its folder.

    Where writing fails nothing stays beside, and CannotWrite names the file.
    """
    beside = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        beside.replace(path)
    except OSError as error:
        found = error.strerror or error
        raise CannotWrite(f"{path}: expected to write this file, found: {found}") from None
    finally:
        with suppress(OSError):
            beside.unlink()


def flush_to_disk(path: Path) -> None:
    """Return when a file's content, or a folder's list of names, outlasts a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, and its folder where there is none; another reader never sees half of it."""
    with whole(path) as beside:
        beside.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write a JSON file whole or not at all; raise ValueError for NaN, which is not JSON."""
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")
