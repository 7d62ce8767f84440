"""How fast pretraining's batches are read, against `.mat` files, and what share of a step that is.

    python -m benchmarks.feed                        # times a base step, too (minutes on a CPU)
    python -m benchmarks.feed --step-seconds 2.0     # takes the step's time as given
    python -m benchmarks.feed --quick

Batches of 8 pairs, random ones, every lead masked with probability 0.5: what the stage reads, in
one thread, without the reading ahead that hides it. The textbook keeps each segment in a `.mat`
file and masks it the same way. Both read the demo's segments (`make repro` first), in turn, warm.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io
import torch

from benchmarks.pipeline_folder import ROOT
from benchmarks.rows import hand_over, parser_of, row_of
from ecg_core.batches.augment import TaskParams
from ecg_core.batches.dataset import SegmentBatches
from ecg_core.params import read_section
from ecg_core.segments import SegmentStore, open_segments

ROWS = 16
"""Segments of 8 pairs."""


def write_mat_files(store: SegmentStore, folder: Path) -> None:
    """Write every segment as the original's preprocessing does: float64 in a `.mat` file."""
    for row in range(len(store)):
        signal = store.read([row])[0].astype(np.float64)
        scipy.io.savemat(folder / f"{row}.mat", {"feats": signal, "curr_sample_rate": 500})


def textbook_batch(folder: Path, rows: np.ndarray, generator: np.random.Generator) -> torch.Tensor:
    """Read a batch, file by file, with masked leads."""
    segments = []
    for row in rows:
        signal = scipy.io.loadmat(folder / f"{row}.mat")["feats"]
        signal[generator.random(12) < 0.5] = 0.0
        segments.append(torch.from_numpy(signal).float())
    return torch.stack(segments)


def segments_a_second(read: Callable[[np.ndarray], object], n_segments: int, batches: int) -> float:
    """Return how many segments a second come in batches of random rows."""
    generator = np.random.default_rng(1)
    drawn = [generator.integers(0, n_segments, ROWS) for _ in range(batches)]
    start = time.perf_counter()
    for rows in drawn:
        read(rows)
    return batches * ROWS / (time.perf_counter() - start)


def base_step() -> float:
    """Return the seconds of our base pretraining step of 8 pairs, in the faster precision."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.json")
        command = ["-m", "benchmarks.step", "--tasks", "pretrain", "--no-memory", "--rounds", "1"]
        subprocess.run([sys.executable, *command, "--json", str(file)], cwd=ROOT, check=True)
        rows = json.loads(file.read_text())
    return float(min(row["ours"] for row in rows if not row["name"].endswith("textbook")))


def main() -> None:
    """Time both feeds in turn and print them."""
    parser = parser_of(__doc__)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--step-seconds", type=float, help="of a base step; measured if not given")
    parser.add_argument("--quick", action="store_true", help="fewer batches")
    given = parser.parse_args()
    batches = 40 if given.quick else given.batches
    store = open_segments(ROOT / "data/segments")
    task = read_section("task", TaskParams)
    reader = SegmentBatches(store, None, task.leads_to_load, task, seed=1)
    generator = np.random.default_rng(2)
    ours, textbook = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_mat_files(store, folder)
        for _ in range(given.rounds):
            ours.append(segments_a_second(lambda rows: reader.read(rows, 1), len(store), batches))
            textbook.append(
                segments_a_second(
                    lambda rows: textbook_batch(folder, rows, generator), len(store), batches
                )
            )
    best, plain = max(ours), max(textbook)
    step = given.step_seconds or base_step()
    share = ROWS / best / step
    bar = "at most 3 % of a base step of 8 pairs"
    rows = [
        row_of("data feed", best, "segments/s", textbook=plain, ratio=best / plain),
        row_of("data feed's share of a base step", 100 * share, "%", bar=bar, met=share <= 0.03)
        | {"step_seconds": step},
    ]
    hand_over(rows, given.json)


if __name__ == "__main__":
    main()
