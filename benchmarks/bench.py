"""All benchmarks in turn: `make bench`, or `python -m benchmarks.bench [--quick] [--only PART]`.

Every part is a program of its own (`python -m benchmarks.PART --help`) that prints its rows; here
they come after one another, each in its own process, into one table and
benchmarks/results/bench.json with what is known of the machine. Leave the machine alone meanwhile.
Needs the demo's data (`make repro`). Exits with status 1 where a part fails or a bar is missed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.pipeline_folder import ROOT
from benchmarks.rows import Row, line_of
from benchmarks.step import gemm_peak

RESULTS = ROOT / "benchmarks/results/bench.json"

STEP_BARS = {
    "pretrain step, base, 8 pairs, fp32": 1.2,
    "pretrain step, base, 8 pairs, bf16": 3.0,
    "finetune step, base, 8 pairs, fp32": 1.2,
    "finetune step, base, 8 pairs, bf16": 3.0,
}
"""How many times as fast as the textbook's fp32 step."""

MEMORY_BARS = {
    "pretrain memory, base, 8 pairs, fp32": 0.80,
    "pretrain memory, base, 8 pairs, bf16": 0.60,
    "pretrain memory, base, 8 pairs, fp32, checkpointing": 0.40,
}
"""Parts of the textbook's fp32 step."""

PARTS: dict[str, tuple[list[str], list[str]]] = {
    "step": (["--sizes", "base", "small", "demo", "--pairs", "8", "16"], ["--rounds", "1"]),
    "start_up": ([], ["--quick"]),
    "feed": ([], ["--quick"]),
    "preprocessing": ([], ["--quick"]),
    "evaluation": ([], []),
    "saving": ([], ["--quick"]),
    "tracking": ([], ["--quick"]),
    "kills": ([], ["--quick"]),
}
"""A part's arguments, and its arguments under --quick."""


def machine() -> dict[str, object]:
    """Return what decides the figures."""
    kind = subprocess.run([ROOT / ".ci/processor"], capture_output=True, text=True, check=True)
    return {
        "processor": kind.stdout.strip(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "fp32_peak_gflops": gemm_peak(torch.float32),
        "bf16_peak_gflops": gemm_peak(torch.bfloat16),
        "date": time.strftime("%Y-%m-%d"),
    }


def run(part: str, arguments: list[str]) -> dict[str, object]:
    """Run a part; return its rows, its seconds and its exit status."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.json")
        command = [sys.executable, "-m", f"benchmarks.{part}", *arguments, "--json", str(file)]
        done = subprocess.run(command, cwd=ROOT, check=False)
        rows: list[Row] = json.loads(file.read_text()) if file.is_file() else []
    seconds = round(time.monotonic() - start, 1)
    told = {"arguments": arguments, "seconds": seconds, "status": done.returncode}
    return {**told, "rows": with_bars(rows)}


def with_bars(rows: list[Row]) -> list[Row]:
    """Say of the step's rows what is asked of them."""
    for row in rows:
        name, ratio = str(row["name"]), float(str(row["ratio"] or 0))
        if name in STEP_BARS and not row.get("emulated"):  # without its instructions bf16 is fp32
            row |= {"bar": f"at least {STEP_BARS[name]} x", "met": ratio >= STEP_BARS[name]}
        if name in MEMORY_BARS:
            row |= {"bar": f"at most {MEMORY_BARS[name]} x", "met": ratio <= MEMORY_BARS[name]}
    return rows


def step_seconds(rows: list[Row]) -> list[str]:
    """Return what `feed` has to know of the base step, so that it need not measure it again."""
    base = [
        float(str(row["ours"]))
        for row in rows
        if str(row["name"]).startswith("pretrain step, base, 8 pairs")
        and not str(row["name"]).endswith("textbook")
    ]
    return ["--step-seconds", str(min(base))] if base else []


def main() -> int:
    """Run the parts, print the table, write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="minutes: fewer rounds, sizes, kills")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    found: dict[str, dict[str, object]] = {}
    known: list[str] = []
    of_machine = machine()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    for part in given.only:
        arguments = PARTS[part][1 if given.quick else 0]
        print(f"\n{part}", flush=True)
        found[part] = run(part, [*arguments, *(known if part == "feed" else [])])
        if part == "step":
            known = step_seconds(found[part]["rows"])  # type: ignore[arg-type]
        whole = {"machine": of_machine, "quick": given.quick, "parts": found}
        # after every part: an interrupted run keeps what it has
        given.out.write_text(json.dumps(whole, indent=1) + "\n")
    print("\n" + "\n".join(f"{key}: {value}" for key, value in of_machine.items()))
    missed = []
    for part, told in found.items():
        print(f"\n{part} ({told['seconds']} s)")
        for row in told["rows"]:  # type: ignore[attr-defined]
            print(line_of(row))
            if row.get("met") is False:
                missed.append(row["name"])
        if told["status"]:
            missed.append(f"{part} ended with status {told['status']}")
    print(f"\nwritten: {given.out}", *(f"missed: {name}" for name in missed), sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
