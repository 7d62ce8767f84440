"""The on-disk store of segments: the offline side creates it, the training side reads it.

A folder of four files: `store.json` (lead names, fs, samples a segment), `recordings.csv` (which
recording has how many segments, in the store's order), `gains.f32` (digital units per millivolt,
one row of 12 a recording) and `signals.i16` (all segments one after another, each lead-first).
Numbers are little-endian. A store in shards has files of some segments each instead of the last,
here or behind a URL; `store.json` then lists them.
"""

import json
import os
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecg_core.leads import LEADS
from ecg_core.outputs import write_json
from ecg_core.shards import BadSegments, Shard, Shards, require_size, segment_bytes
from ecg_core.tables import write_csv

RECORDING_COLUMNS = ("source", "record_id", "segments")
INDEX_COLUMNS = ("source", "record_id", "segment")

_META, _RECORDINGS, _GAINS, _SIGNALS = "store.json", "recordings.csv", "gains.f32", "signals.i16"
_BYTES_OF_GAINS = len(LEADS) * 4


def samples_at(n_samples: int, fs: float, target_fs: int) -> int:
    """Return the samples that a recording has when brought to another fs (method.md, 4.1)."""
    return int(n_samples * target_fs / fs)


def segments_in(n_samples: int, fs: float, target_fs: int, seconds: float) -> int:
    """Return how many whole segments a recording gives; the tail is dropped (method.md, 4.1)."""
    return samples_at(n_samples, fs, target_fs) // round(seconds * target_fs)


def count_segments(manifest: pd.DataFrame, *, fs: int, seconds: float) -> pd.DataFrame:
    """Return `RECORDING_COLUMNS` of all kept records: how many segments each gives."""
    counts = [
        segments_in(n_samples, rate, fs, seconds)
        for n_samples, rate in zip(manifest["n_samples"], manifest["fs"], strict=True)
    ]
    return manifest[["source", "record_id"]].assign(segments=counts)


def list_segments(recordings: pd.DataFrame) -> pd.DataFrame:
    """Return `INDEX_COLUMNS`, one row a segment, of recordings with `RECORDING_COLUMNS`."""
    counts = recordings["segments"].to_numpy(np.int64)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    index = recordings.loc[:, ["source", "record_id"]].iloc[
        np.repeat(np.arange(len(counts)), counts)
    ]
    return index.assign(segment=np.arange(len(first)) - first).reset_index(drop=True)


class SegmentStore:
    """A memory-mapped store, read-only; it may be pickled, and shared by forked processes."""

    def __init__(self, folder: Path) -> None:
        """Open a store; raise BadSegments when a file is missing or has not its size."""
        meta, recordings = _read_layout(folder)
        self.fs, self.n_samples = int(meta["fs"]), int(meta["samples"])
        self.folder = folder
        counts = recordings["segments"].to_numpy(np.int64)
        self._recording = np.repeat(np.arange(len(recordings)), counts)
        self.index = list_segments(recordings)
        self._shards = Shards(folder, self._listed(meta), meta.get("url"))
        require_size(folder / _GAINS, len(recordings) * _BYTES_OF_GAINS)
        gains = np.fromfile(folder / _GAINS, "<f4").reshape(-1, len(LEADS), 1)
        self._gains: npt.NDArray[np.float32] = gains

    def __len__(self) -> int:
        """Return the number of segments."""
        return len(self._recording)

    def read(self, rows: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Return segments as millivolt, shape (row, lead, sample), leads I to V6.

        Raises BadSegments when a shard is missing, or not what `store.json` says.
        """
        places = np.asarray(rows, np.int64)
        out = np.empty((len(places), len(LEADS), self.n_samples), np.float32)
        for position, segment in self._shards.each(places):
            gains = self._gains[self._recording[places[position]]]
            np.divide(segment, gains, out=out[position])
        return out

    def read_digital(self, rows: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.int16]:
        """Return segments as they are stored, before the division by their gains."""
        places = np.asarray(rows, np.int64)
        out = np.empty((len(places), len(LEADS), self.n_samples), np.int16)
        for position, segment in self._shards.each(places):
            out[position] = segment
        return out

    def _listed(self, meta: dict[str, Any]) -> list[Shard]:
        """Return the store's shards; raise BadSegments when they are not all of its segments."""
        size = segment_bytes(self.n_samples)
        if "shards" not in meta:
            return [Shard(_SIGNALS, len(self), len(self) * size, None)]
        shards = [Shard(**shard) for shard in meta["shards"]]
        found = sum(shard.segments for shard in shards)
        fit = all(shard.size == shard.segments * size for shard in shards)
        if not shards or found != len(self) or not fit:
            raise BadSegments(
                f"{self.folder / _META}: expected shards of {len(self)} segments of {size} bytes, "
                f"found {found} in {sum(shard.size for shard in shards)} bytes"
            )
        return shards


def open_segments(folder: Path) -> SegmentStore:
    """Open a store for reading; raise BadSegments when it is not whole."""
    return SegmentStore(folder)


class SegmentWriter:
    """Fills a store, or a stretch of it, in any order: every recording has its place."""

    def __init__(
        self,
        folder: Path,
        counts: Sequence[int],
        *,
        n_samples: int,
        recording: int,
        segment: int,
        rows: range | None = None,
    ) -> None:
        """Open what `create_segments` has laid out, for recordings with these numbers of segments.

        The first of them is the store's `recording`, and its first segment the store's `segment`.
        With `rows` only these segments of them are written, into a shard's file (`shard_name`).
        """
        self.n_samples = n_samples
        self._recording = recording
        self._first = [segment, *(segment + total for total in accumulate(counts))]
        self._rows = rows or range(self._first[-1])
        name, flags = (shard_name(rows), os.O_CREAT | os.O_TRUNC) if rows else (_SIGNALS, 0)
        self._signals = os.open(folder / name, os.O_WRONLY | flags, 0o666)
        self._gains = os.open(folder / _GAINS, os.O_WRONLY)

    def write(
        self, recording: int, signal: npt.NDArray[np.int16], gains: npt.NDArray[np.float32]
    ) -> None:
        """Cut a whole recording, shape (lead, sample), into its segments and put them in place."""
        place = recording - self._recording
        start, stop = self._first[place], self._first[place + 1]
        first, end = max(start, self._rows.start), min(stop, self._rows.stop)
        if first >= end:
            return
        count = stop - start
        cut = signal[:, : count * self.n_samples].reshape(len(LEADS), count, self.n_samples)
        here = cut.transpose(1, 0, 2)[first - start : end - start]
        segments = np.ascontiguousarray(here, "<i2").data.cast("B")
        _write_all(
            self._signals, segments, (first - self._rows.start) * segment_bytes(self.n_samples)
        )
        of_leads = memoryview(gains.astype("<f4").tobytes())
        _write_all(self._gains, of_leads, recording * _BYTES_OF_GAINS)

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in (self._signals, self._gains):
            os.close(descriptor)


def create_segments(
    folder: Path, recordings: pd.DataFrame, *, fs: int, n_samples: int
) -> SegmentWriter:
    """Lay out an empty store for recordings with known numbers of segments, and open it.

    `recordings` has the columns `RECORDING_COLUMNS`; its order is the order of the store.
    """
    counts = [int(count) for count in recordings["segments"]]
    create_index(folder, recordings)
    _truncate(folder / _SIGNALS, sum(counts) * segment_bytes(n_samples))
    _write_meta(folder, fs, n_samples, {})
    return SegmentWriter(folder, counts, n_samples=n_samples, recording=0, segment=0)


def create_index(folder: Path, recordings: pd.DataFrame) -> None:
    """Lay out what a store has beside its segments, in one file or in shards."""
    folder.mkdir(parents=True, exist_ok=True)
    _truncate(folder / _GAINS, len(recordings) * _BYTES_OF_GAINS)
    write_csv(folder / _RECORDINGS, recordings[list(RECORDING_COLUMNS)])


def list_shards(
    folder: Path, shards: Sequence[Shard], url: str | None, *, fs: int, n_samples: int
) -> None:
    """Complete a store in shards with their list, in the order of the store."""
    listed: dict[str, object] = {"shards": [shard._asdict() for shard in shards]}
    _write_meta(folder, fs, n_samples, listed if url is None else {"url": url, **listed})


def shard_name(rows: range) -> str:
    """Return the name of the file that holds these segments of a store."""
    return f"signals-{rows.start:09d}.i16"


def _write_meta(folder: Path, fs: int, n_samples: int, more: Mapping[str, object]) -> None:
    write_json(folder / _META, {"leads": list(LEADS), "fs": fs, "samples": n_samples, **more})


def _truncate(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _write_all(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _read_layout(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the content of `store.json`, and the recordings with their numbers of segments."""
    if not (folder / _META).is_file() or not (folder / _RECORDINGS).is_file():
        raise BadSegments(f"{folder}: expected a store of segments, found none")
    meta: dict[str, Any] = json.loads((folder / _META).read_text())
    if meta.get("leads") != list(LEADS):
        raise BadSegments(f"{folder / _META}: expected leads {LEADS}, found {meta.get('leads')}")
    texts = {"source": str, "record_id": str}
    return meta, pd.read_csv(folder / _RECORDINGS, dtype=texts, keep_default_na=False)
