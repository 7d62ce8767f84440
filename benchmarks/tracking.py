"""What logging to MLflow costs a training: the same work with and without it, in turn.

    python -m benchmarks.tracking            # 5 pairs of runs of about a minute
    python -m benchmarks.tracking --quick    # 1 pair of some seconds

The work is a fixed number of matrix products an epoch on torch's two threads, as in the demo; each
epoch logs 17 values, 10 030 in all, the end a file. For each run: wall time, the time for which
the training itself stood still (all calls, and the wait at the end), and the processor time of
training and of MLflow's writer, which runs at the lowest priority. Medians; the cost is counted
twice: as the difference in wall time, which a busy machine blurs, and as time stood still.
"""

import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch, as stages/__init__.py has it

import torch

from benchmarks.rows import hand_over, parser_of, row_of
from ecg_core import tracking

PARAMS = "tracking: {{mlflow: {on}, experiment: benchmark}}\ndata: {{mirror: none}}\n"
VALUES = 17


class Cost(NamedTuple):
    """Seconds of one run."""

    wall: float
    stood_still: float
    longest_call: float
    own_processor: float
    writer_processor: float


def processor(who: int) -> float:
    """Return the processor seconds so far."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def one_run(epochs: int, products: int, on: bool) -> Cost:
    """Work and log; return what it took."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("params.yaml").write_text(PARAMS.format(on=str(on).lower()))
        os.environ["DVC_ROOT"] = folder
        matrix = torch.randn(512, 512)
        calls = []
        own, writer = processor(resource.RUSAGE_SELF), processor(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        with tracking.run("pretrain") as run:
            started = time.perf_counter()
            for epoch in range(1, epochs + 1):
                for _ in range(products):
                    matrix = torch.tanh(matrix @ matrix / 23)
                before = time.perf_counter()
                run.log_metrics({f"value_{n}": 0.5 for n in range(VALUES)}, step=epoch)
                calls.append(time.perf_counter() - before)
            Path("history.csv").write_text("epoch\n")
            run.log_artifacts([Path("history.csv")])
            work_ends = time.perf_counter()
        end = time.perf_counter()
        os.chdir("/")
    return Cost(
        wall=end - start,
        stood_still=started - start + sum(calls) + end - work_ends,
        longest_call=max(calls),
        own_processor=processor(resource.RUSAGE_SELF) - own,
        writer_processor=processor(resource.RUSAGE_CHILDREN) - writer,
    )


def main() -> None:
    """Run in turn without and with, and print every run and the medians."""
    parser = parser_of(__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    file = given.json and given.json.absolute()  # the runs change the folder
    epochs, products, pairs = (20, 150, 1) if given.quick else (590, 25, given.pairs)
    torch.set_num_threads(2)
    print("logging      wall  stood still  longest call  own processor  writer's   (s)")
    found: dict[bool, list[Cost]] = {False: [], True: []}
    for _ in range(pairs):
        for on in (False, True):
            cost = one_run(epochs, products, on)
            found[on].append(cost)
            wall, still, longest, own, writer = cost
            print(
                f"{'on' if on else 'off':<8} {wall:>8.2f} {still:>12.3f} {longest:>13.5f} "
                f"{own:>14.2f} {writer:>9.2f}",
                flush=True,
            )
    without, with_it = (
        Cost(*(statistics.median(values) for values in zip(*found[on], strict=True)))
        for on in (False, True)
    )
    values = f"logging {epochs * VALUES} values"
    bar = "under 1 % of a run's time"
    still = 100 * with_it.stood_still / with_it.wall
    rows = [
        row_of(f"{values}: training stood still", still, "%", bar=bar, met=still < 1),
        row_of(f"{values}: wall", with_it.wall, "s", ratio=with_it.wall / without.wall),
        row_of(
            f"{values}: processor time of training",
            with_it.own_processor,
            "s",
            ratio=with_it.own_processor / without.own_processor,
        ),
        row_of(f"{values}: processor time of the writer", with_it.writer_processor, "s"),
    ]
    hand_over(rows, file)


if __name__ == "__main__":
    main()
