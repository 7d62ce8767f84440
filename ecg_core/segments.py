"""The on-disk store of segments: the offline side creates it, the training side reads it.

A folder of four files: `store.json` (lead names, fs, samples a segment), `recordings.csv` (which
recording has how many segments, in the store's order), `gains.f32` (digital units per millivolt,
one row of 12 a recording) and `signals.i16` (all segments one after another, each lead-first).
Numbers are little-endian.
"""

import json
import os
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecg_core.leads import LEADS
from ecg_core.outputs import write_csv, write_json
from ecg_core.refusal import Refusal

RECORDING_COLUMNS = ("source", "record_id", "segments")
INDEX_COLUMNS = ("source", "record_id", "segment")

_META, _RECORDINGS, _GAINS, _SIGNALS = "store.json", "recordings.csv", "gains.f32", "signals.i16"
_BYTES_OF_GAINS = len(LEADS) * 4


class BadSegments(Refusal):
    """A folder is no whole store of segments."""


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
        self.fs, self.n_samples, recordings = _read_layout(folder)
        self.folder = folder
        counts = recordings["segments"].to_numpy(np.int64)
        self._recording = np.repeat(np.arange(len(recordings)), counts)
        self.index = list_segments(recordings)
        self._check_sizes(len(recordings))
        gains = np.fromfile(folder / _GAINS, "<f4").reshape(-1, len(LEADS), 1)
        self._gains: npt.NDArray[np.float32] = gains
        self._map: npt.NDArray[np.int16] | None = None

    def __len__(self) -> int:
        """Return the number of segments."""
        return len(self._recording)

    def __getstate__(self) -> dict[str, object]:
        """Leave the memory map behind: another process opens its own."""
        return {**self.__dict__, "_map": None}

    def read(self, rows: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Return segments as millivolt, shape (row, lead, sample), leads I to V6."""
        signals = self._signals()
        out = np.empty((len(rows), len(LEADS), self.n_samples), np.float32)
        for position, row in enumerate(rows):
            np.divide(signals[row], self._gains[self._recording[row]], out=out[position])
        return out

    def read_digital(self, rows: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.int16]:
        """Return segments as they are stored, before the division by their gains."""
        return self._signals()[np.asarray(rows, np.int64)]

    def _signals(self) -> npt.NDArray[np.int16]:
        if self._map is None:
            shape = (len(self), len(LEADS), self.n_samples)
            # a plain view: slices of numpy's memmap class cost more than reading them
            self._map = np.asarray(np.memmap(self.folder / _SIGNALS, "<i2", mode="r", shape=shape))
        return self._map

    def _check_sizes(self, n_recordings: int) -> None:
        expected = {
            _GAINS: n_recordings * _BYTES_OF_GAINS,
            _SIGNALS: len(self) * len(LEADS) * self.n_samples * 2,
        }
        for name, size in expected.items():
            path = self.folder / name
            found = path.stat().st_size if path.is_file() else None
            if found != size or not size:
                raise BadSegments(f"{path}: expected {size} bytes (more than 0), found {found}")


def open_segments(folder: Path) -> SegmentStore:
    """Open a store for reading; raise BadSegments when it is not whole."""
    return SegmentStore(folder)


class SegmentWriter:
    """Fills a store, or a stretch of it, in any order: every recording has its place."""

    def __init__(
        self, folder: Path, counts: Sequence[int], *, n_samples: int, recording: int, segment: int
    ) -> None:
        """Open what `create_segments` has laid out, for recordings with these numbers of segments.

        The first of them is the store's `recording`, and its first segment the store's `segment`.
        """
        self.n_samples = n_samples
        self._recording = recording
        self._first = [segment, *(segment + total for total in accumulate(counts))]
        self._signals = os.open(folder / _SIGNALS, os.O_WRONLY)
        self._gains = os.open(folder / _GAINS, os.O_WRONLY)

    def write(
        self, recording: int, signal: npt.NDArray[np.int16], gains: npt.NDArray[np.float32]
    ) -> None:
        """Cut a whole recording, shape (lead, sample), into its segments and put them in place."""
        place = recording - self._recording
        first = self._first[place]
        count = self._first[place + 1] - first
        if not count:
            return
        cut = signal[:, : count * self.n_samples].reshape(len(LEADS), count, self.n_samples)
        segments = np.ascontiguousarray(cut.transpose(1, 0, 2), "<i2").data.cast("B")
        _write_all(self._signals, segments, first * len(LEADS) * self.n_samples * 2)
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
    folder.mkdir(parents=True, exist_ok=True)
    n_segments = int(recordings["segments"].sum())
    sizes = {
        _GAINS: len(recordings) * _BYTES_OF_GAINS,
        _SIGNALS: n_segments * len(LEADS) * n_samples * 2,
    }
    for name, size in sizes.items():
        with (folder / name).open("wb") as file:
            file.truncate(size)
    write_csv(folder / _RECORDINGS, recordings[list(RECORDING_COLUMNS)])
    write_json(folder / _META, {"leads": list(LEADS), "fs": fs, "samples": n_samples})
    counts = [int(count) for count in recordings["segments"]]
    return SegmentWriter(folder, counts, n_samples=n_samples, recording=0, segment=0)


def _write_all(descriptor: int, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _read_layout(folder: Path) -> tuple[int, int, pd.DataFrame]:
    """Return fs, samples a segment, and the recordings with their numbers of segments."""
    if not (folder / _META).is_file() or not (folder / _RECORDINGS).is_file():
        raise BadSegments(f"{folder}: expected a store of segments, found none")
    meta = json.loads((folder / _META).read_text())
    if meta.get("leads") != list(LEADS):
        raise BadSegments(f"{folder / _META}: expected leads {LEADS}, found {meta.get('leads')}")
    texts = {"source": str, "record_id": str}
    recordings = pd.read_csv(folder / _RECORDINGS, dtype=texts, keep_default_na=False)
    return int(meta["fs"]), int(meta["samples"]), recordings
