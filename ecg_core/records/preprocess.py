"""Build the store of segments of all kept records: parallel, resumable, whole or not at all."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecg_core.leads import LEADS
from ecg_core.manifest import RefusedRecord
from ecg_core.outputs import write_text
from ecg_core.records.parallel import in_chunks, in_processes
from ecg_core.records.raw import DataParams
from ecg_core.records.signal import at_rate
from ecg_core.records.wfdb_io import Recording, read_samples, signal_checksums, standard_leads
from ecg_core.refusal import Refusal
from ecg_core.segments import SegmentWriter, count_segments, create_segments, open_segments

_CHUNK = 100
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class _Kept(NamedTuple):
    """What the manifest says of a record, and its place in the store."""

    recording: int
    segment: int
    segments: int
    path: str
    suffix: str
    fs: float
    n_samples: int
    leads: str
    gains: str
    checksums: str


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
    building, done = state / "segments", state / "done"
    if not _can_go_on(state):
        shutil.rmtree(state, ignore_errors=True)
        _require_space(state, recordings, params)
        n_samples = round(params.seconds * params.fs)
        create_segments(building, recordings, fs=params.fs, n_samples=n_samples).close()
        done.mkdir()
        write_text(state / "boot", _boot())
    chunks = in_chunks(_kept(manifest, recordings), _CHUNK)
    left = [chunk for chunk in chunks if not (done / str(chunk[0].recording)).exists()]
    write = partial(_write_chunk, raw, building, done, params)
    for _ in in_processes(write, left, params.workers, "preprocess"):
        pass
    _put_in_place(building, out)
    open_segments(out)
    shutil.rmtree(state)


def _kept(manifest: pd.DataFrame, recordings: pd.DataFrame) -> list[_Kept]:
    counts = recordings["segments"]
    table = manifest.assign(
        recording=range(len(manifest)), segment=counts.cumsum() - counts, segments=counts
    )
    columns = [table[name].tolist() for name in _Kept._fields]
    return [_Kept(*row) for row in zip(*columns, strict=True)]


def _can_go_on(state: Path) -> bool:
    # after a power cut, a chunk that is noted as done may still not have reached the disk
    boot, building = state / "boot", state / "segments"
    return building.is_dir() and boot.is_file() and boot.read_text() == _boot()


def _boot() -> str:
    """Return what names the time since the machine was started, "" where nothing does."""
    return _BOOT.read_text() if _BOOT.is_file() else ""


def _write_chunk(
    raw: Path, building: Path, done: Path, params: DataParams, records: Sequence[_Kept]
) -> None:
    """Write some recordings, and only then note that they are done."""
    writer = SegmentWriter(
        building,
        [kept.segments for kept in records],
        n_samples=round(params.seconds * params.fs),
        recording=records[0].recording,
        segment=records[0].segment,
    )
    for kept in records:
        recording = at_rate(_read(raw, kept), params.fs, params.resample_method)
        writer.write(kept.recording, recording.signal, recording.gains)
    writer.close()
    write_text(done / str(records[0].recording), "")


def _read(raw: Path, kept: _Kept) -> Recording:
    """Read a record as the manifest describes it: the header was read once, when that was made."""
    path = Path(f"{raw}/{kept.path}.{kept.suffix}")
    names = tuple(kept.leads.split())
    try:
        signal = standard_leads(read_samples(path, len(names), kept.n_samples), names)
    except RefusedRecord as refusal:
        raise ChangedRecord(_changed(path, str(refusal))) from None
    # not its SHA-256, which would take longer than all the rest
    found = " ".join(map(str, signal_checksums(signal)))
    if found != kept.checksums:
        raise ChangedRecord(_changed(path, f"expected checksums {kept.checksums}, found {found}"))
    return Recording(signal, _numbers(kept.gains), kept.fs)


@lru_cache(maxsize=1024)
def _numbers(text: str) -> npt.NDArray[np.float32]:
    return np.array(text.split(), np.float32)


def _changed(path: Path, what: str) -> str:
    return (
        f"{path}: changed since the manifest was made: {what}; "
        "run python -m stages.download, then python -m stages.manifest"
    )


def _require_space(state: Path, recordings: pd.DataFrame, params: DataParams) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    n_bytes = int(recordings["segments"].sum()) * len(LEADS) * round(params.seconds * params.fs) * 2
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
