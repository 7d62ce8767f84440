"""Build the store of segments of all kept records: parallel, resumable, whole or not at all."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from ecg_core.manifest import RefusedRecord
from ecg_core.outputs import write_bytes
from ecg_core.records.parallel import in_chunks, in_processes
from ecg_core.records.raw import DataParams
from ecg_core.records.signal import at_rate
from ecg_core.records.wfdb_io import read_recording, signal_sha256
from ecg_core.refusal import Refusal
from ecg_core.segments import SegmentWriter, count_segments, create_segments, open_segments

_CHUNK = 50
_DONE = "done"

Record = tuple[int, str, str]
"""A recording's position in the store, its path and the SHA-256 of its signal."""


class ChangedRecord(Refusal):
    """A raw file is no longer what the manifest has seen."""


def state_folder(manifest: Path, params: DataParams) -> Path:
    """Return where unfinished work lies, named after everything that decides the result."""
    key = hashlib.sha256(manifest.read_bytes())
    key.update(f"{params.fs} {params.seconds} {params.resample_method}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        key.update(source.read_bytes())
    root = Path(os.environ.get("DVC_ROOT", "."))
    return root / ".state" / f"preprocess-{key.hexdigest()[:16]}"


def build_segments(
    manifest: pd.DataFrame, raw: Path, out: Path, state: Path, params: DataParams
) -> None:
    """Cut all recordings into segments; go on where an interrupted run with this state stopped.

    Raises ChangedRecord when a record is not what the manifest says.
    """
    recordings = count_segments(manifest, fs=params.fs, seconds=params.seconds)
    building = state / "segments"
    done = state / _DONE
    if not done.is_dir():
        _require_space(state, recordings, params)
        shutil.rmtree(state, ignore_errors=True)
        n_samples = round(params.seconds * params.fs)
        create_segments(building, recordings, fs=params.fs, n_samples=n_samples).close()
        done.mkdir()
    rows = zip(range(len(manifest)), manifest["path"], manifest["sha256"], strict=True)
    chunks = in_chunks(list(rows), _CHUNK)
    left = [chunk for chunk in chunks if not (done / str(chunk[0][0])).exists()]
    write = partial(_write_chunk, raw, building, done, params)
    for _ in in_processes(write, left, params.workers, "preprocess"):
        pass
    _put_in_place(building, out)
    open_segments(out)
    shutil.rmtree(state)


def _write_chunk(
    raw: Path, building: Path, done: Path, params: DataParams, records: Sequence[Record]
) -> None:
    """Write some recordings, bring them to the disk, and only then note that they are done."""
    writer = SegmentWriter(building)
    for position, path, sha256 in records:
        try:
            recording = read_recording(raw / path)
        except RefusedRecord as refusal:
            raise ChangedRecord(_changed(raw / path, str(refusal))) from None
        found = signal_sha256(recording.signal)
        if found != sha256:
            raise ChangedRecord(_changed(raw / path, f"expected SHA-256 {sha256}, found {found}"))
        brought = at_rate(recording, params.fs, params.resample_method)
        writer.write(position, brought.signal, brought.gains)
    writer.close()
    write_bytes(done / str(records[0][0]), b"")


def _changed(path: Path, what: str) -> str:
    return (
        f"{path}: changed since the manifest was made: {what}; "
        "run python -m stages.download, then python -m stages.manifest"
    )


def _require_space(state: Path, recordings: pd.DataFrame, params: DataParams) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    n_bytes = int(recordings["segments"].sum()) * 12 * round(params.seconds * params.fs) * 2
    free = shutil.disk_usage(state.parent).free
    if n_bytes > free:
        raise Refusal(
            f"{state.parent}: expected {n_bytes / 1e9:.3f} GB of free space for the segments, "
            f"found {free / 1e9:.3f} GB"
        )


def _put_in_place(building: Path, out: Path) -> None:
    """Rename the finished store; across file systems, copy it beside its place first."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(out.name + ".tmp")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.move(building, beside)
    shutil.rmtree(out, ignore_errors=True)
    beside.rename(out)
