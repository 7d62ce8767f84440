"""Send what a stage logs to MLflow, through a process of its own, which cannot hurt the stage.

Importing mlflow, opening its store and every call to it happen in a writer (`mlflow_writer.py`)
that runs at the lowest priority and is fed through a pipe that never blocks. So a server that is
down, a locked database or a full disk costs a training nothing: it is said once, and
`make mlflow-sync` logs afterwards from the reports what was missed.
"""

import json
import logging
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from ecg_core.params import Section, read_section

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 30.0
"""How long the end of a stage waits for its last rows to be written."""


class TrackingParams(Section):
    """Section `tracking`: whether, and under which experiment's name, MLflow is told."""

    mlflow: bool
    experiment: Annotated[str, StringConstraints(min_length=1)]


def project_root() -> Path:
    """Return the folder of the project: under `dvc exp run --temp` not the current one."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).absolute()


def state_folder() -> Path:
    """Return the git-ignored folder that remembers which MLflow runs are ours."""
    return project_root() / ".state" / "mlflow"


class Run:
    """One stage's run in MLflow; every method returns at once and raises nothing."""

    def __init__(self, stage: str, enabled: bool) -> None:
        self._stage = stage
        self._enabled = enabled
        self._writer: subprocess.Popen[bytes] | None = None
        self._unsent = b""
        self._started_ms = _now_ms()

    def log_metrics(self, row: Mapping[str, float], step: int) -> None:
        """Log one row of named values at a step (an epoch)."""
        self._send({"metrics": dict(row), "step": step, "time_ms": _now_ms()})

    def log_artifacts(self, paths: Sequence[Path]) -> None:
        """Keep copies of files, or of the files in folders, under their paths in the project."""
        self._send({"artifacts": [str(path) for path in paths]})

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run, such as the device it ran on."""
        self._send({"tags": dict(tags)})

    def log_model(self, checkpoint: Path) -> None:
        """Log a finetuned checkpoint as the experiment's model, with its model card."""
        self._send({"model": str(checkpoint)})

    def close(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED, waiting at most `PATIENCE_SECONDS`."""
        self._send({"end": status})
        if not self._enabled or self._writer is None or self._writer.stdin is None:
            return
        until = time.monotonic() + PATIENCE_SECONDS
        try:
            self._flush(until)
            self._writer.stdin.close()
            if self._writer.wait(timeout=max(0.0, until - time.monotonic())) != 0:
                self._give_up(_reason(_log_file(self._stage)))
        except (OSError, subprocess.TimeoutExpired):
            self._give_up(f"no answer within {PATIENCE_SECONDS:.0f} s")

    def _send(self, message: dict[str, object]) -> None:
        if not self._enabled:
            return
        self._unsent += json.dumps(message).encode() + b"\n"
        try:
            if self._writer is None:
                self._writer = _start_writer(self._stage, self._started_ms)
            self._flush(until=time.monotonic())
        except BrokenPipeError:
            self._give_up(_reason(_log_file(self._stage)))
        except OSError as error:
            self._give_up(str(error))

    def _flush(self, until: float) -> None:
        """Write what the pipe takes, waiting for it until a moment of time.monotonic()."""
        pipe = self._writer.stdin if self._writer else None
        while self._unsent and pipe is not None:
            if not select.select([], [pipe], [], max(0.0, until - time.monotonic()))[1]:
                return
            self._unsent = self._unsent[os.write(pipe.fileno(), self._unsent) :]

    def _give_up(self, reason: str) -> None:
        self._enabled = False
        self._unsent = b""
        if self._writer is not None and self._writer.stdin is not None:
            self._writer.kill()
            self._writer.wait()
            self._writer.stdin.close()
        logger.warning(
            "MLflow: logging of %s stopped, the stage goes on (%s). "
            "`make mlflow-sync` logs afterwards what is missing.",
            self._stage,
            reason,
        )


@contextmanager
def run(stage: str) -> Iterator[Run]:
    """Give a stage its run, which does nothing where tracking.mlflow is false or in a second rank.

    An interrupted stage that is started again continues its run.
    """
    params = read_section("tracking", TrackingParams)
    first_rank = os.environ.get("RANK", "0") == "0"
    current = Run(stage, enabled=params.mlflow and first_rank)
    current.log_tags({"stage": stage})  # starts the writer, which is ready long before the end
    status = "FAILED"
    try:
        yield current
        status = "FINISHED"
    finally:
        current.close(status)


def _start_writer(stage: str, started_ms: int) -> subprocess.Popen[bytes]:
    log = _log_file(stage)
    log.parent.mkdir(parents=True, exist_ok=True)
    # the module's own folder, not the current one, is where Python has to find ecg_core
    source = str(Path(__file__).parents[1])
    search = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    with log.open("wb") as errors:
        writer = subprocess.Popen(
            [sys.executable, "-m", "ecg_core.mlflow_writer", stage, str(started_ms)],
            stdin=subprocess.PIPE,
            stdout=errors,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": search},
            start_new_session=True,  # Ctrl-C is for the stage; the writer ends with its pipe
        )
    if writer.stdin is not None:
        os.set_blocking(writer.stdin.fileno(), False)
    return writer


def _log_file(stage: str) -> Path:
    return state_folder() / f"{stage}.log"


def _reason(log: Path) -> str:
    """Return the line of the writer's log that says what went wrong."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return [*lines, *errors][-1][:300] if lines else "its writer ended"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
