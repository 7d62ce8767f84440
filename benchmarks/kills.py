"""Kill trainings at random moments and look whether they end as if nothing had been.

    python -m benchmarks.kills                  # ten SIGKILLs of a pretraining, ten of a finetuning
    python -m benchmarks.kills --processes 2    # two processes: one of them is killed, or all
    python -m benchmarks.kills --quick          # three kills each

A small model on the demo's data (`make repro` first). Every training runs once undisturbed; then
it is started again after each kill until it ends. Models, histories and metrics must be the same
bytes, and every epoch must stand once in the history. States are saved about twice a second, so
kills fall within epochs and within saving. Exits with status 1 where anything differs.
"""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.pipeline_folder import PREPARED, lay_out, start_stage
from benchmarks.rows import Row, hand_over, parser_of, row_of

SMALL: dict[str, object] = {
    "common.threads": 1,
    "common.no_progress_bar": True,
    "dataset.batch_size": 8,
    "optimization.max_epoch": 16,
    "model.conv_feature_layers": [[16, 2, 2]] * 4,
    "model.encoder_layers": 1,
    "model.encoder_embed_dim": 32,
    "model.encoder_ffn_embed_dim": 64,
    "model.conv_pos": 8,
    "model.conv_pos_groups": 2,
    "model.latent_vars": 8,
    "model.final_dim": 16,
    "checkpoint.save_interval_minutes": 0.01,
    "finetune.max_epoch": 16,
    "finetune.update_freq": [2],
    "tracking.mlflow": False,
}
MODELS = {"pretrain": "models/pretrained", "finetune": "models/finetuned"}


def results(folder: Path, stage: str) -> dict[str, bytes]:
    """Return what a stage leaves, by name."""
    places = [folder / MODELS[stage], folder / "reports" / stage]
    return {file.name: file.read_bytes() for place in places for file in sorted(place.iterdir())}


def states(folder: Path, stage: str) -> list[Path]:
    """Return the saved states, oldest first."""
    return sorted((folder / ".state").glob(f"{stage}-*/state-*.pt"))


def undisturbed(folder: Path, stage: str) -> tuple[float, float]:
    """Run a stage to its end; return the seconds until its first state, and after it."""
    start = time.monotonic()
    process = start_stage(folder, stage)
    while process.poll() is None and not states(folder, stage):
        time.sleep(0.01)
    first = time.monotonic()
    said = process.communicate()[1]
    if process.returncode:
        sys.exit(f"{stage} failed:\n{said[-2000:]}")
    return first - start, time.monotonic() - first


def kill(process: "subprocess.Popen[str]", chance: random.Random) -> str:
    """Kill a stage with all its processes, or one of those that train, and wait; return which."""
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "stages." in " ".join(child.cmdline())
    ]
    if workers and chance.random() < 0.5:
        worker = chance.choice(workers)
        worker.kill()
        whom = f"one of {len(workers)} processes"
    else:
        os.killpg(process.pid, signal.SIGKILL)
        whom = "the process and its group"
    try:
        process.communicate(timeout=120)  # the others have to notice, and to end by themselves
    except subprocess.TimeoutExpired:
        for worker in workers:
            worker.kill()
        sys.exit(f"{whom} killed, and not all had ended 120 s later")
    return whom


def disturbed(
    folder: Path, stage: str, kills: int, times: tuple[float, float], chance: random.Random
) -> int:
    """Start a stage until it ends, killing it so many times; return how often it was killed."""
    to_first, rest = times
    for number in range(1, kills + 1):
        # in start-up, too; and never so late that it could end before its last kill
        delay = chance.uniform(0.3 * to_first, to_first + rest / kills)
        process = start_stage(folder, stage)
        try:
            said = process.communicate(timeout=delay)[1]
        except subprocess.TimeoutExpired:
            whom = kill(process, chance)
        else:
            print(f"  ended before kill {number} with status {process.returncode}: {said[-300:]}")
            return number - 1
        newest = states(folder, stage)[-1:]
        half = [file.stat().st_size for file in (folder / ".state").glob(f"{stage}-*/*.tmp")]
        where = f", saved: {newest[0].stem}" if newest else ", nothing saved yet"
        writing = f", {half[0]} bytes of the next one" if half else ""
        print(f"  kill {number:2} after {delay:5.1f} s, {whom}{where}{writing}", flush=True)
    process = start_stage(folder, stage)
    said = process.communicate()[1]
    if process.returncode:
        sys.exit(f"{stage} failed after its kills:\n{said[-2000:]}")
    return kills


def compared(whole: Path, folder: Path, stage: str, killed: int, kills: int) -> Row:
    """Compare what both leave, print it and return a row."""
    ours, expected = results(folder, stage), results(whole, stage)
    differing = [name for name in expected | ours if ours.get(name) != expected.get(name)]
    with (folder / "reports" / stage / "history.csv").open(newline="") as lines:
        epochs = [int(row["epoch"]) for row in csv.DictReader(lines)]
    twice_or_lost = epochs != list(range(1, len(epochs) + 1))
    half = [str(file) for file in folder.rglob("*.tmp")]
    print(f"  {len(expected)} files, differing: {differing}; {len(epochs)} epochs; halves: {half}")
    met = killed == kills and not differing and not twice_or_lost and not half
    return row_of(
        f"{stage}, killed and resumed, files that differ",
        len(differing),
        f"of {len(expected)}",
        bar=f"{kills} kills, none differs",
        met=met,
        kills=killed,
        epochs=len(epochs),
    )


def main() -> int:
    """Kill both trainings and return 0 where all is as if nothing had been."""
    parser = parser_of(__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--stages", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    kills = 3 if given.quick else given.kills
    settings = {
        **SMALL,
        "distributed_training.processes": given.processes,
        "distributed_training.distributed_world_size": given.processes,
    }
    rows = []
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name, "whole"), Path(name, "killed")
        for folder in (whole, killed):
            lay_out(folder, settings, shared=(*PREPARED, "split"))
        for stage in MODELS:
            chance = random.Random(f"{given.seed} {stage}")
            times = undisturbed(whole, stage)
            print(f"{stage}: {times[0]:.1f} s to the first state, {times[1]:.1f} s after it")
            if stage in given.stages:
                done = disturbed(killed, stage, kills, times, chance)
                rows.append(compared(whole, killed, stage, done, kills))
            else:
                shutil.copytree(whole / MODELS[stage], killed / MODELS[stage])
    hand_over(rows, given.json)
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
