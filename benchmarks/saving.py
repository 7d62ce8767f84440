"""What saving the state costs: of the demo's trainings, and of the base model by its state's size.

    python -m benchmarks.saving            # the demo's trainings for 12 epochs, the base state
    python -m benchmarks.saving --quick    # 4 epochs

The demo's stages run as they are, in a folder of their own on the demo's data (`make repro` first),
without MLflow; the time within saving a state and keeping a model is taken from the time of the
whole loop. The base model's state (weights and both of Adam's moments) is saved as it is; from its
seconds follows the length of an epoch, and the time between saves, at which saving takes 2 %.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from benchmarks.pipeline_folder import PREPARED, ROOT, lay_out
from benchmarks.rows import Row, hand_over, parser_of, row_of
from ecg_core.device import CommonParams
from ecg_core.models.encoder import ModelParams
from ecg_core.models.wav2vec2_cmsc import build_pretraining
from ecg_core.params import parse_section, read_section
from ecg_core.training import run as training_run
from ecg_core.training.checkpoint import CheckpointParams, StateFolder
from ecg_core.training.kept_models import KeptModels
from ecg_core.training.optimizer import Adam

SHARE = 0.02
BAR = "at most 2 % of the time"


class Stopwatch:
    """Adds up the time within functions."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time taken."""

        def timed(*args: object, **named: object) -> object:
            start = time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                self.seconds.append(time.perf_counter() - start)

        return timed


def one_stage(stage: str) -> None:
    """Run a stage in the current folder; print its saves, their seconds, and the loop's."""
    saving, looping = Stopwatch(), Stopwatch()
    StateFolder.save = saving.around(StateFolder.save)  # type: ignore[method-assign]
    KeptModels.keep = saving.around(KeptModels.keep)  # type: ignore[method-assign]
    training_run.train = looping.around(training_run.train)
    module = __import__(f"stages.{stage}", fromlist=["main"])
    module.main()
    print(len(saving.seconds), sum(saving.seconds), sum(looping.seconds))


def demo(folder: Path, stage: str) -> Row:
    """Return what saving costs a stage of the demo."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.saving", "--one", stage],
        cwd=folder,
        env={
            **os.environ,
            "DVC_ROOT": str(folder),
            "PYTHONPATH": str(ROOT),
            "OMP_WAIT_POLICY": "passive",  # as stages/__init__.py has it
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{stage} failed:\n{done.stderr[-2000:]}")
    saves, within, whole = map(float, done.stdout.split())
    share = within / (whole - within)
    name = f"saving, {stage}, demo"
    return row_of(name, 100 * share, "%", bar=BAR, met=share <= SHARE, saves=saves, loop=whole)


def base(times: int) -> list[Row]:
    """Return the seconds of saving the base model's state, and what follows from them."""
    yaml = YAML(typ="safe")
    params = yaml.load(ROOT / "params.yaml")
    for name, changes in yaml.load(ROOT / "experiments/full.yaml").items():
        params[name].update(changes)
    path = ROOT / "params.yaml"
    common = parse_section("common", params["common"], CommonParams, path)
    model = build_pretraining(parse_section("model", params["model"], ModelParams, path), common)
    adam = Adam(model.parameters(), (0.9, 0.98), 1e-6, 0.01)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    adam.step(1e-4)
    taken = []
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        os.environ["DVC_ROOT"] = folder
        states = StateFolder("benchmark", {})
        for epoch in range(times):
            state = {"model": model.state_dict(), "optimizer": adam.state_dict()}
            start = time.perf_counter()
            states.save({**state, "epoch": epoch, "updates_in_epoch": 0})
            taken.append(time.perf_counter() - start)
        size = max(file.stat().st_size for file in states.path.glob("*.pt"))
    seconds = statistics.median(taken)
    minutes = read_section("checkpoint", CheckpointParams).save_interval_minutes
    share = seconds / (60 * minutes)
    return [
        row_of(f"saving the base state, {size / 1e9:.2f} GB", seconds, "s", all=taken),
        row_of(
            f"saving the base state each {minutes:g} minutes",
            100 * share,
            "%",
            bar=BAR,
            met=share <= SHARE,
        ),
        row_of("epochs of the base model long enough for that", seconds / SHARE, "s"),
    ]


def main() -> None:
    """Measure the demo's trainings and the base model's state."""
    parser = parser_of(__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", help="what a child process does")
    given = parser.parse_args()
    if given.one:
        sys.argv[1:] = []
        return one_stage(given.one)
    epochs = 4 if given.quick else given.epochs
    settings: dict[str, object] = {
        "optimization.max_epoch": epochs,
        "finetune.max_epoch": epochs,
        "tracking.mlflow": False,
    }
    with tempfile.TemporaryDirectory(dir=ROOT) as name:
        folder = Path(name)
        lay_out(folder, settings, shared=(*PREPARED, "split"))
        rows = [demo(folder, stage) for stage in ("pretrain", "finetune")]
    return hand_over(rows + base(2 if given.quick else 5), given.json)


if __name__ == "__main__":
    main()
