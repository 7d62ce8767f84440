"""c7: real records, from the raw integers and the header to millivolt segments and labels."""

import struct
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from ecg_core.classes import CLASSES
from ecg_core.records.header import parse_header
from ecg_core.records.labels import scored_classes
from ecg_core.records.signal import at_rate
from ecg_core.records.wfdb_io import read_recording
from ecg_core.segments import create_segments, open_segments, segments_in
from tests.replay.comparison import Comparison
from tests.replay.fixtures import CannotReplay, Fixtures

FS, SECONDS = 500, 5.0
HALF_A_UNIT = 6e-8
"""Relative: what rounding a number of float64 to float32 changes at most."""


def replay_records(stem: str, fixtures: Fixtures, table: Comparison) -> None:
    """Write each record as its files, read, cut and store it, and compare sample by sample."""
    arrays, told = fixtures.pair(stem)
    with tempfile.TemporaryDirectory() as folder:
        for name, record in told.items():
            if f"{name}/raw" not in arrays or "header" not in record:
                raise CannotReplay(f"expected {name}/raw and its header, found {sorted(record)}")
            source, record_id = name.split("/")
            raw, header = arrays[f"{name}/raw"], record["header"]
            found = _segments(Path(folder), source, record_id, raw, header)
            expected = {n: a for n, a in arrays.items() if n.startswith(f"{name}_")}
            for key, feats in expected.items():
                number = int(key.removesuffix("/feats").rpartition("_")[2])
                if number >= len(found):
                    table.fail(key, f"expected segment {number}, found {len(found)} segments")
                    continue
                table.close(f"{key} mV", found[number], feats, relative=HALF_A_UNIT)
            # a fixture may hold some of a long recording's segments
            enough = len(found) >= len(record["segments"])
            table.exact(f"{name} segments", enough, True)
            classes = scored_classes(parse_header(header, record_id).diagnoses)
            labels = [label in classes for label in CLASSES]
            for number, segment in enumerate(record["segments"]):
                there = np.array(segment["label"]).reshape(-1)
                table.exact(f"{name}_{number} labels", labels, there)


def _segments(
    folder: Path, source: str, record_id: str, raw: np.ndarray, header: str
) -> np.ndarray:
    """Take a record through the whole offline side: files, reading, rate, store."""
    place = folder / source
    place.mkdir(exist_ok=True)
    first, *rest = header.splitlines(keepends=True)
    fields = first.split()
    # a fixture may hold the beginning of a long recording
    first = " ".join([*fields[:3], str(raw.shape[1]), *fields[4:]]) + "\n"
    (place / f"{record_id}.hea").write_text("".join([first, *rest]))
    matrix = struct.pack("<5i", 30, *raw.shape, 0, 4) + b"val\0"
    (place / f"{record_id}.mat").write_bytes(matrix + raw.T.astype("<i2").tobytes())
    recording = at_rate(read_recording(place / record_id), FS, "linear")
    n_segments = segments_in(recording.signal.shape[1], recording.fs, FS, SECONDS)
    one = pd.DataFrame({"source": [source], "record_id": [record_id], "segments": [n_segments]})
    store = place / f"{record_id}-segments"
    writer = create_segments(store, one, fs=FS, n_samples=round(FS * SECONDS))
    writer.write(0, recording.signal, recording.gains)
    writer.close()
    return open_segments(store).read(np.arange(n_segments))
