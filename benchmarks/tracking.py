"""What logging to MLflow costs a training: the same work with and without it, in turn.

    python -m benchmarks.tracking            # 3 pairs of runs of about a minute
    python -m benchmarks.tracking --quick    # 1 pair of some seconds

The work is a fixed number of matrix products an epoch on torch's two threads, as in the demo; each
epoch logs 17 values, the end a file. Prints the seconds of each run,
the difference, the longest call of log_metrics, and the wait at the end.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from ecg_core import tracking

PARAMS = "tracking: {{mlflow: {on}, experiment: benchmark}}\ndata: {{mirror: none}}\n"
VALUES = 17


def one_run(epochs: int, products: int, on: bool) -> tuple[float, float, float]:
    """Return the seconds of a run, of its longest call, and of the wait at its end."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("params.yaml").write_text(PARAMS.format(on=str(on).lower()))
        os.environ["DVC_ROOT"] = folder
        matrix = torch.randn(512, 512)
        longest = 0.0
        start = time.perf_counter()
        with tracking.run("pretrain") as run:
            for epoch in range(1, epochs + 1):
                for _ in range(products):
                    matrix = torch.tanh(matrix @ matrix / 23)
                before = time.perf_counter()
                run.log_metrics({f"value_{n}": 0.5 for n in range(VALUES)}, step=epoch)
                longest = max(longest, time.perf_counter() - before)
            Path("history.csv").write_text("epoch\n")
            run.log_artifacts([Path("history.csv")])
            work_ends = time.perf_counter()
        end = time.perf_counter()
        os.chdir("/")
    return end - start, longest, end - work_ends


def main() -> None:
    """Run in turn without and with, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    epochs, products, pairs = (10, 300, 1) if quick else (55, 500, 3)
    torch.set_num_threads(2)
    print("tracking    seconds  longest call (ms)  wait at the end (s)")
    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(pairs):
        for on in (False, True):
            seconds, longest, wait = one_run(epochs, products, on)
            found[on].append(seconds)
            print(
                f"{'on' if on else 'off':<8} {seconds:>10.2f} {1e3 * longest:>18.2f} {wait:>20.2f}"
            )
    without, with_it = (statistics.median(found[on]) for on in (False, True))
    cost = with_it - without
    print(f"median cost {cost:.2f} s of {without:.1f} s: {cost / without:.1%}")
    print(f"of the demo's 8 minutes: {cost / 480:.1%} a tracked stage")


if __name__ == "__main__":
    main()
