"""Cut the demo's recordings into segments: our store, against a `.mat` file a segment.

    python -m benchmarks.preprocessing

The demo's Challenge records (`make repro` first), in one process, five times in turn, warm. The
textbook reads a record with scipy, divides by its gains and writes float64; ours checks every file
and checksum as it goes. `benchmarks/archives.py` has the same at full size.
"""

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.archives import cut
from benchmarks.pipeline_folder import ROOT
from benchmarks.rows import hand_over, parser_of, row_of
from ecg_core.manifest import read_manifest
from ecg_core.params import read_section
from ecg_core.records.preprocess import build_segments
from ecg_core.records.raw import DataParams, raw_folder
from ecg_core.records.wfdb_io import read_recording


def main() -> None:
    """Time both in turn and print recordings a second."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    given = parser.parse_args()
    manifest = read_manifest(ROOT / "data/manifest/manifest.csv")
    challenge = manifest["dataset"].str.startswith("challenge")
    manifest = manifest[challenge].reset_index(drop=True)
    raw = raw_folder()
    paths = [raw / path for path in manifest["path"]]
    gains = [read_recording(path).gains[:, None].astype(np.float64) for path in paths]
    params = read_section("data", DataParams).model_copy(update={"workers": 1})
    ours, textbook = [], []
    with tempfile.TemporaryDirectory() as name:
        for _ in range(2 if given.quick else given.rounds):
            files, store = Path(name, "files"), Path(name, "store")
            for folder in (files, store):
                shutil.rmtree(folder, ignore_errors=True)
            files.mkdir()
            start = time.perf_counter()
            for path, gain in zip(paths, gains, strict=True):
                cut(path, gain, files)
            textbook.append(time.perf_counter() - start)
            start = time.perf_counter()
            build_segments(manifest, raw, store, Path(name, "state"), params)
            ours.append(time.perf_counter() - start)
    best, plain = (len(paths) / min(seconds) for seconds in (ours, textbook))
    row = row_of("preprocessing", best, "records/s", textbook=plain, ratio=best / plain)
    hand_over([row], given.json)


if __name__ == "__main__":
    main()
