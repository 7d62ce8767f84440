"""Write to MLflow what a stage sends through `tracking.Run`'s pipe, or what the reports hold.

A program of its own: `python -m ecg_core.mlflow_writer STAGE STARTED_MS` reads the pipe's JSON
lines; `python -m ecg_core.mlflow_writer sync` logs from the reports what is missing. Whatever goes
wrong here ends this process with a traceback, and the stage goes on without it.
"""

import csv
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ecg_core import mlflow_names, mlflow_runs
from ecg_core.dotted import flatten
from ecg_core.mlflow_names import Experiment
from ecg_core.params import read_section, read_yaml
from ecg_core.tracking import TrackingParams

# after mlflow_runs, which tells mlflow how to behave before it is imported
from mlflow.entities import Dataset, DatasetInput, Metric, RunTag  # isort: skip

logger = logging.getLogger(__name__)

BATCH = 1000
"""Metrics in one call, the server's limit."""

TRACKED = ("pretrain", "finetune", "identify", "evaluate", "report")
WHOLE = ("params.yaml", "dvc.yaml", "dvc.lock")
MANIFEST = Path("data/manifest/manifest.csv")


class StageWriter:
    """The run of one stage, found again or made, and the parent run of its experiment."""

    def __init__(self, stage: str, started_ms: int | None, afterwards: bool) -> None:
        params = read_section("tracking", TrackingParams)
        self.stage = stage
        self.experiment = mlflow_names.current_experiment()
        self.client, page = mlflow_runs.open_store(params.experiment)
        ids = mlflow_names.remembered(self.experiment, any_commit=afterwards)
        self.parent, _ = mlflow_runs.parent_run(self.client, page, self.experiment, ids)
        found = mlflow_runs.live_run(self.client, ids.get(stage))
        # an interrupted stage goes on in its run; a finished one that runs again is another run
        if found is None or (found.info.status == "FINISHED" and not afterwards):
            found = self._create(page, started_ms, afterwards)
        self.run_id = str(found.info.run_id)
        ids[stage] = self.run_id
        mlflow_names.remember(self.experiment, ids)
        for run_id in (self.parent, self.run_id):
            self.client.update_run(run_id, status="RUNNING")

    def _create(self, page: str, started_ms: int | None, afterwards: bool) -> Any:
        tags = {
            **self.experiment.tags,
            "mlflow.parentRunId": self.parent,
            "stage": self.stage,
            "logged": "afterwards, from the reports" if afterwards else "while it ran",
        }
        made = self.client.create_run(page, started_ms, tags, run_name=self.stage)
        mlflow_runs.log_params(self.client, made.info.run_id, self.experiment.params)
        data = data_set(self.experiment)
        if data is not None:
            self.client.log_inputs(made.info.run_id, [DatasetInput(data)])
        return made

    def write(self, message: dict[str, Any]) -> None:
        """Carry out one message of the pipe."""
        if "metrics" in message:
            step, time_ms = message["step"], message["time_ms"]
            rows = [
                Metric(name, float(value), time_ms, step)
                for name, value in message["metrics"].items()
            ]
            self._log_metrics(self.run_id, rows)
        if "artifacts" in message:
            self.log_files(self.run_id, [Path(path) for path in message["artifacts"]])
        if "tags" in message:
            tags = [RunTag(key, str(value)) for key, value in message["tags"].items()]
            self.client.log_batch(self.run_id, tags=tags)

        if "model" in message and Path(message["model"]).is_file():
            # here, because it takes seconds to import what only the last stage needs
            from ecg_core.mlflow_model import log_classifier

            log_classifier(mlflow_names.tracking_uri(), self.parent, Path(message["model"]))

    def log_files(self, run_id: str, paths: Iterable[Path]) -> None:
        """Log files, and the files in folders, under the folders they lie in."""
        for path in paths:
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            for file in files:
                if file.is_file():
                    folder = file.parent.as_posix() if not file.is_absolute() else ""
                    self.client.log_artifact(run_id, str(file), folder.removeprefix(".") or None)

    def complete_from_reports(self) -> None:
        """Log what this stage's reports hold and MLflow does not: epochs, and the final numbers.

        The final numbers stand in the parent run, where experiments are compared.
        """
        folder, now = Path("reports", self.stage), _now_ms()
        if (folder / "history.csv").is_file():
            self._log_missing(read_history(folder / "history.csv"), now)
        if (folder / "metrics.json").is_file():
            values = numbers(json.loads((folder / "metrics.json").read_text()))
            metrics = [Metric(name, value, now, 0) for name, value in values.items()]
            self._log_metrics(self.parent, metrics)

    def _log_missing(self, rows: Sequence[tuple[int, dict[str, float]]], now: int) -> None:
        """Log the rows of a history whose epochs the run does not have."""
        names = list(rows[0][1]) if rows else []
        known = self.client.get_metric_history(self.run_id, names[0]) if names else []
        steps = {metric.step for metric in known}
        metrics = [
            Metric(name, value, now, step)
            for step, row in rows
            if step not in steps
            for name, value in row.items()
        ]
        self._log_metrics(self.run_id, metrics)

    def _log_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Log metrics in as few calls as the server allows."""
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(run_id, metrics=metrics[start : start + BATCH])

    def end(self, status: str) -> None:
        """Complete the run and end it; the parent is finished whenever none of its stages runs."""
        if status == "FINISHED":
            self.complete_from_reports()
        self.log_files(self.parent, [Path(name) for name in WHOLE])
        self.client.set_terminated(self.run_id, status)
        self.client.set_terminated(self.parent, status)


def data_set(experiment: Experiment) -> Dataset | None:
    """Describe the data by the digest of the manifest, which names every record's checksum."""
    if not MANIFEST.is_file():
        return None
    content = MANIFEST.read_bytes()
    profile = json.dumps({"records": content.count(b"\n") - 1})
    return Dataset(
        name="ECG records",
        digest=hashlib.sha256(content).hexdigest()[:32],
        source_type="local",
        source=json.dumps({"mirror": experiment.params.get("data.mirror")}),
        profile=profile,
    )


def read_history(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Return a history's rows as (epoch, values); empty cells are left out."""
    with path.open(newline="") as lines:
        return [
            (int(row.pop("epoch")), {name: float(value) for name, value in row.items() if value})
            for row in csv.DictReader(lines)
        ]


def numbers(tree: dict[str, Any]) -> dict[str, float]:
    """Return a metrics file's numbers under their dotted names, without their intervals."""
    return {
        name: float(value)
        for name, value in flatten(tree).items()
        if isinstance(value, int | float) and ".interval." not in name
    }


def follow(stage: str, started_ms: int, lines: Iterable[str]) -> None:
    """Carry out the pipe's messages until it ends; without a last word the run has been killed."""
    writer = StageWriter(stage, started_ms, afterwards=False)
    status = "KILLED"
    for line in lines:
        message = json.loads(line)
        status = message.get("end", status)
        writer.write(message)
    writer.end(status)


def sync() -> None:
    """Log from the reports whatever the runs of the current parameters miss."""
    for stage in TRACKED:
        folder = Path("reports", stage)
        if not folder.is_dir():
            continue
        stale = changed_since(stage)
        if stale:
            logger.warning("%s: left out, made from other parameters (%s)", stage, ", ".join(stale))
            continue
        writer = StageWriter(stage, None, afterwards=True)
        writer.log_files(writer.run_id, [folder])
        writer.end("FINISHED")
        logger.info("%s: complete", stage)


def changed_since(stage: str) -> list[str]:
    """Return the parameters that differ from those dvc.lock says the stage's reports come from."""
    lock = Path("dvc.lock")
    stages = read_yaml(lock).get("stages", {}) if lock.is_file() else {}
    made_from = flatten(stages.get(stage, {}).get("params", {}).get("params.yaml", {}))
    now = flatten(read_yaml())
    return sorted(key for key, value in made_from.items() if now.get(key) != value)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    """Follow a pipe, or log from the reports."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if sys.argv[1:] == ["sync"]:
        sync()
    else:
        os.nice(19)  # training first
        stage, started_ms = sys.argv[1:]
        follow(stage, int(started_ms), sys.stdin)
        # the stage waits for this: taking mlflow apart module by module would be most of it
        logging.shutdown()
        os._exit(0)


if __name__ == "__main__":
    main()
