"""Build the store of segments of all kept records: parallel, resumable, whole or not at all."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecg_core.manifest import RefusedRecord
from ecg_core.outputs import write_text
from ecg_core.records.parallel import in_chunks, in_processes
from ecg_core.records.put_shards import finish_shard, finished_shards, shard_rows
from ecg_core.records.raw import DataParams
from ecg_core.records.signal import at_rate
from ecg_core.records.wfdb_io import Recording, read_samples, signal_checksums, standard_leads
from ecg_core.refusal import Refusal
from ecg_core.segments import (
    SegmentWriter,
    count_segments,
    create_index,
    create_segments,
    list_shards,
    open_segments,
    shard_name,
)
from ecg_core.shards import segment_bytes

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


@dataclass(frozen=True)
class _Work:
    """What is written, and noted as done, at once."""

    name: str
    records: Sequence[_Kept]
    rows: range | None
    """The segments of a shard; None: all of these records."""

    def __len__(self) -> int:
        """Return the number of records, for the progress bar."""
        return len(self.records)


class ChangedRecord(Refusal):
    """A raw file is no longer what the manifest has seen."""


def state_folder(manifest: Path, params: DataParams) -> Path:
    """Return where unfinished work lies, named after everything that decides the result."""
    key = hashlib.sha256(manifest.read_bytes())
    key.update(f"{params.fs} {params.seconds} {params.resample_method}".encode())
    key.update(f"{params.segments_per_shard} {params.segments_url}".encode())
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
    n_samples = round(params.seconds * params.fs)
    if not _can_go_on(state):
        shutil.rmtree(state, ignore_errors=True)
        _require_space(state, recordings, params)
        if _in_shards(params):
            create_index(building, recordings)
        else:
            create_segments(building, recordings, fs=params.fs, n_samples=n_samples).close()
        done.mkdir()
        write_text(state / "boot", _boot())
    works = _works(manifest, recordings, params)
    left = [work for work in works if not (done / work.name).exists()]
    write = partial(_write, raw, building, done, params)
    for _ in in_processes(write, left, params.workers, "preprocess"):
        pass
    if _in_shards(params):
        shards = finished_shards([done / work.name for work in works])
        list_shards(building, shards, params.segments_url, fs=params.fs, n_samples=n_samples)
    _put_in_place(building, out)
    open_segments(out)
    shutil.rmtree(state)


def _works(manifest: pd.DataFrame, recordings: pd.DataFrame, params: DataParams) -> list[_Work]:
    """Return what is to be written: stretches of one file, or whole shards."""
    counts = recordings["segments"].to_numpy(np.int64)
    ends = np.cumsum(counts)
    table = manifest.assign(recording=range(len(manifest)), segment=ends - counts, segments=counts)
    columns = [table[name].tolist() for name in _Kept._fields]
    records = [_Kept(*row) for row in zip(*columns, strict=True)]
    if not _in_shards(params):
        chunks = in_chunks(records, _CHUNK)
        return [_Work(str(chunk[0].recording), chunk, None) for chunk in chunks]
    works, n_segments = [], int(counts.sum())
    for rows in shard_rows(n_segments, params.segments_per_shard or max(1, n_segments)):
        # a recording that straddles a border is read for both shards
        first, end = np.searchsorted(ends, rows.start, "right"), np.searchsorted(ends, rows.stop)
        works.append(_Work(str(rows.start), records[int(first) : int(end) + 1], rows))
    return works


def _in_shards(params: DataParams) -> bool:
    return params.segments_per_shard is not None or params.segments_url is not None


def _can_go_on(state: Path) -> bool:
    # after a power cut, a chunk that is noted as done may still not have reached the disk
    boot, building = state / "boot", state / "segments"
    return building.is_dir() and boot.is_file() and boot.read_text() == _boot()


def _boot() -> str:
    """Return what names the time since the machine was started, "" where nothing does."""
    return _BOOT.read_text() if _BOOT.is_file() else ""


def _write(raw: Path, building: Path, done: Path, params: DataParams, work: _Work) -> None:
    """Write some recordings, and only then note that they are done."""
    writer = SegmentWriter(
        building,
        [kept.segments for kept in work.records],
        n_samples=round(params.seconds * params.fs),
        recording=work.records[0].recording,
        segment=work.records[0].segment,
        rows=work.rows,
    )
    for kept in work.records:
        recording = at_rate(_read(raw, kept), params.fs, params.resample_method)
        writer.write(kept.recording, recording.signal, recording.gains)
    writer.close()
    note = done / work.name
    if work.rows is None:
        write_text(note, "")
    else:
        path = building / shard_name(work.rows)
        finish_shard(path, len(work.rows), params.segments_url, note)


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
    """Refuse to begin what would fill the disk; shards leave it once they are put elsewhere."""
    state.parent.mkdir(parents=True, exist_ok=True)
    n_segments = int(recordings["segments"].sum())
    if params.segments_url is not None and params.segments_per_shard is not None:
        n_segments = min(n_segments, params.workers * params.segments_per_shard)
    n_bytes = n_segments * segment_bytes(round(params.seconds * params.fs))
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
