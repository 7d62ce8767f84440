"""What knowing 10 million recordings costs, signals apart: `python -m benchmarks.index`.

Made-up recordings of 10 s at 500 Hz (two segments, one pair), a patient each, through the functions
that the stages call: the store's index, the manifest, the split with its leak report, the pairs and
batches of pretraining, preprocessing into shards, a shard's checksum. Each is measured in a process
of its own: processor seconds, and the peak of memory above that process at its start. Writes
benchmarks/results/index.json, from which benchmarks/cost.py takes its constants. Some minutes and
6 GB of memory at the numbers of recordings below.
"""

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.memory import peak_bytes
from benchmarks.published import made_up_manifest
from ecg_core.batches.dataset import DatasetParams, SegmentBatches, rows_of
from ecg_core.batches.feeds import pair_feed
from ecg_core.manifest import read_manifest, write_manifest
from ecg_core.outputs import write_json
from ecg_core.params import read_section
from ecg_core.records.collect import collect
from ecg_core.records.leaks import leak_report
from ecg_core.records.preprocess import _works, build_segments
from ecg_core.records.raw import DataParams
from ecg_core.records.split import SplitParams, split_segments
from ecg_core.segments import count_segments, create_segments, list_segments, open_segments
from ecg_core.splits import read_split, write_split
from tests.records.examples import GEORGIA, signal, sums_of, write_record

OUT = Path("benchmarks/results/index.json")
Row = dict[str, float]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=int, default=10_000_000, help="recordings of the index")
    parser.add_argument(
        "--split", type=int, default=1_000_000, help="recordings of split and pairs"
    )
    parser.add_argument("--preprocess", type=int, default=5_000, help="recordings to cut")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        rows = {
            "index": in_a_process(partial(index, work / "index", given.index)),
            "parquet": in_a_process(partial(parquet, work / "index")),
            "manifest": in_a_process(partial(manifest, work, given.split)),
            "works": in_a_process(partial(works, work)),
            "split": in_a_process(partial(split, work, given.split)),
            "pairs": in_a_process(partial(pairs, work, given.split)),
            "preprocess": in_a_process(partial(preprocess, work, given.preprocess)),
            "checksum": in_a_process(checksum),
        }
    for what, row in rows.items():
        print(what, json.dumps(row))
    write_json(given.out, {"command": "python -m benchmarks.index", **rows})


def in_a_process(work: Callable[[], Row]) -> Row:
    """Return what a process of its own measures."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work).result()


def measured(work: Callable[[], object]) -> Row:
    """Return processor seconds, and the megabytes by which memory grew at most."""
    before, started = peak_bytes(), time.process_time()
    kept = work()
    seconds, after = time.process_time() - started, peak_bytes()
    del kept
    return {"seconds": round(seconds, 2), "peak_mb": round((after - before) / 1e6)}


def index(folder: Path, recordings: int) -> Row:
    """Open the index of a store; its segments are one sample long, and the file is empty."""
    table = pd.DataFrame(
        {"source": "ptb-xl", "record_id": [f"HR{n:08d}" for n in range(recordings)], "segments": 2}
    )
    create_segments(folder, table, fs=500, n_samples=1).close()
    files = {"csv_mb": folder / "recordings.csv", "gains_mb": folder / "gains.f32"}
    sizes = {name: round(path.stat().st_size / 1e6, 1) for name, path in files.items()}
    del table
    return {"recordings": recordings, **sizes, **in_a_process(partial(open_and_keep, folder))}


def open_and_keep(folder: Path) -> Row:
    """Open a store and what a training keeps beside it."""
    return measured(lambda: SegmentBatches(open_segments(folder), None, None, None, seed=1))


def parquet(folder: Path) -> Row:
    """Read the same list of recordings as Parquet, sources as numbers."""
    path = folder / "recordings.parquet"
    texts = {"source": "category", "record_id": str}
    pd.read_csv(folder / "recordings.csv", dtype=texts).to_parquet(path)
    size = round(path.stat().st_size / 1e6, 1)
    return {"parquet_mb": size, **in_a_process(partial(read_parquet, path))}


def read_parquet(path: Path) -> Row:
    """Read a Parquet file."""
    return measured(lambda: pd.read_parquet(path))


def manifest(work: Path, recordings: int) -> Row:
    """Read a manifest."""
    path = work / "manifest.csv"
    write_manifest(path, of_ten_seconds(recordings))
    size = round(path.stat().st_size / 1e6, 1)
    return {
        "recordings": recordings,
        "csv_mb": size,
        **in_a_process(partial(measured, partial(read_manifest, path))),
    }


def of_ten_seconds(recordings: int) -> pd.DataFrame:
    """Return a manifest of recordings of 10 s."""
    return made_up_manifest({"ptb-xl": recordings}, {"ptb-xl": np.array([5000])})


def works(work: Path) -> Row:
    """List what preprocessing has to do, shard by shard."""
    table = read_manifest(work / "manifest.csv")
    counted = count_segments(table, fs=500, seconds=5.0)
    params = read_section("data", DataParams).model_copy(update={"segments_per_shard": 8192})
    return {"recordings": len(table), **measured(lambda: _works(table, counted, params))}


def split(work: Path, recordings: int) -> Row:
    """Divide as the split stage does, and look for leaks."""
    table = read_manifest(work / "manifest.csv")
    counted = count_segments(table, fs=500, seconds=5.0)
    segments = list_segments(counted)
    params = read_section("split", SplitParams)
    kept: list[pd.DataFrame] = []

    def divide() -> None:
        kept.append(split_segments(table, segments, params, None))
        leak_report(kept[0], table)

    row = measured(divide)
    write_split(work / "split.csv", kept[0])
    size = round((work / "split.csv").stat().st_size / 1e6, 1)
    create_segments(work / "store", counted, fs=500, n_samples=1).close()
    return {"recordings": recordings, "csv_mb": size, **row}


def preprocess(work: Path, recordings: int) -> Row:
    """Cut recordings on this disk into shards on this disk, in one process."""
    for number in range(recordings):
        write_record(work / "raw", GEORGIA, f"E{number:06d}", signal(number))
    changes = {"segments_per_shard": 1024, "workers": 1}
    params = read_section("data", DataParams).model_copy(update=changes)
    table = collect(work / "raw", sums_of(work / "raw"), params).manifest
    out = work / "shards"
    row = measured(lambda: build_segments(table, work / "raw", out, work / "state", params))
    return {"recordings": recordings, **row}


def checksum() -> Row:
    """Take SHA-256 of half a gigabyte in memory."""
    content = np.zeros(500_000_000, np.uint8)
    return {"mb": 500.0, **measured(lambda: hashlib.sha256(content.data).digest())}


def pairs(work: Path, recordings: int) -> Row:
    """Read the split, pair its segments and cut the batches, as the pretrain stage does."""
    reader = SegmentBatches(open_segments(work / "store"), None, None, None, seed=1)
    batching = read_section("dataset", DatasetParams)

    def feed() -> object:
        table = read_split(work / "split.csv")
        return table, pair_feed(reader, table, batching, (2,))

    row = measured(feed)
    found = read_split(work / "split.csv")
    n_pairs = len(rows_of(reader.store, found[found["pretrain"] == 1])) // 2
    return {"recordings": recordings, "pairs": n_pairs, **row}


if __name__ == "__main__":
    main()
