"""From starting the pretrain stage of the demo to its first update, against bare imports.

    python -m benchmarks.start_up             # five of each, in turn
    python -m benchmarks.start_up --quick     # two of each

Starts `python -m stages.pretrain` as it is (MLflow, progress bar, saved state and all) in a folder
of its own on the demo's data (`make repro` first), and waits for the progress bar to count the
first update; then the stage is killed. Beside it `python -c "import torch, mlflow"`. Medians.
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.pipeline_folder import PREPARED, lay_out, start_stage
from benchmarks.rows import hand_over, parser_of, row_of

FIRST_UPDATE = re.compile(r"\b1/\d+ \[")
"""In tqdm's line: 1 of so many updates."""


def imports() -> float:
    """Return the seconds that importing torch and mlflow takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, mlflow"], check=True)
    return time.perf_counter() - start


def first_update(folder: Path) -> float:
    """Return the seconds from starting the stage to the first update that it counts."""
    start = time.perf_counter()
    process = start_stage(folder, "pretrain")
    said = ""
    while not FIRST_UPDATE.search(said):
        new = os.read(process.stderr.fileno(), 4096)
        if not new:
            sys.exit(f"the stage ended before its first update:\n{said}")
        said += new.decode()
    seconds = time.perf_counter() - start
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return seconds


def main() -> None:
    """Time both in turn and print the medians."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as on any machine, at the second start
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    found: dict[str, list[float]] = {"ours": [], "imports": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder, {}, shared=(*PREPARED, "split"))
        first_update(folder), imports()  # into the page cache
        for _ in range(2 if given.quick else given.rounds):
            found["ours"].append(first_update(folder))
            found["imports"].append(imports())
    ours, plain = statistics.median(found["ours"]), statistics.median(found["imports"])
    row = row_of(
        "start of pretrain to its first update, demo",
        ours,
        "s",
        textbook=plain,
        ratio=ours / plain,
        bar="at most 2 x the imports of torch and mlflow",
        met=ours <= 2 * plain,
        all=found,
    )
    hand_over([row], given.json)


if __name__ == "__main__":
    main()
