"""Runs in MLflow are read back with sqlite3, not with the code that wrote them."""

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ecg_core import mlflow_names, tracking
from ecg_core.dotted import flatten
from ecg_core.params import read_yaml

ROOT = Path(__file__).parents[1]
PARAMS = """\
data:
  mirror: embedded
optimization:
  max_epoch: 3
  lr: [1.0e-3]
tracking:
  mlflow: true
  experiment: ecg-test
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with parameters, without git, whose MLflow store is its own."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("MLFLOW_TRACKING_URI", "RANK", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def rows(project: Path, query: str) -> list[Any]:
    with sqlite3.connect(project / "mlflow.db") as store:
        found = store.execute(query).fetchall()
    store.close()
    return found


def write_reports(project: Path, epochs: int) -> None:
    folder = project / "reports" / "pretrain"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{epoch},{8.0 / epoch},{0.1 * epoch}" for epoch in range(1, epochs + 1)]
    (folder / "history.csv").write_text("\n".join(["epoch,loss,accuracy", *lines, ""]))
    (folder / "metrics.json").write_text('{"pretrain": {"loss": 2.5, "note": "text"}}')


def sync(project: Path) -> str:
    answer = subprocess.run(
        [sys.executable, "-m", "ecg_core.mlflow_writer", "sync"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stderr


class StageFailed(Exception):
    pass


def fail_after_one_epoch() -> None:
    with tracking.run("pretrain") as run:
        run.log_metrics({"loss": 8.0, "segments_per_second": 100.0}, step=1)
        raise StageFailed


def test_an_interrupted_stage_goes_on_in_its_run_and_its_curves_are_whole(project: Path) -> None:
    with pytest.raises(StageFailed):
        fail_after_one_epoch()
    assert rows(project, "select status from runs where name = 'pretrain'") == [("FAILED",)]
    with tracking.run("pretrain") as run:
        # epoch 2 was lost with the interrupted process; the history has it
        run.log_metrics({"loss": 8.0 / 3}, step=3)
        run.log_tags({"device": "cpu"})
        write_reports(project, epochs=3)
        run.log_artifacts([project / "params.yaml", Path("reports/pretrain")])
    assert rows(project, "select name, status from runs order by name desc") == [
        ("pretrain", "FINISHED"),
        (rows(project, "select name from runs where name != 'pretrain'")[0][0], "FINISHED"),
    ]
    child = "run_uuid = (select run_uuid from runs where name = 'pretrain')"
    losses = rows(
        project, f"select step, value from metrics where key = 'loss' and {child} order by step"
    )
    assert [step for step, _ in losses] == [1, 2, 3]
    assert [value for _, value in losses] == pytest.approx([8.0, 4.0, 8.0 / 3])
    params = dict(rows(project, f"select key, value from params where {child}"))
    assert params == {
        "data.mirror": "embedded",
        "optimization.max_epoch": "3",
        "optimization.lr": "[0.001]",
    }
    tags = dict(rows(project, f"select key, value from tags where {child}"))
    assert tags["stage"] == "pretrain"
    assert tags["device"] == "cpu"
    parent = rows(project, "select run_uuid from runs where name != 'pretrain'")[0][0]
    assert tags["mlflow.parentRunId"] == parent
    (page,) = rows(project, "select experiment_id from experiments where name = 'ecg-test'")[0]
    known = flatten(read_yaml(project / "params.yaml"))
    address = mlflow_names.run_address("any name with the same parameters", known)
    assert address == f"http://127.0.0.1:5000/#/experiments/{page}/runs/{parent}"
    assert mlflow_names.run_address("no-git", {**known, "optimization.max_epoch": 4}) is None
    final = rows(project, f"select key, value from metrics where run_uuid = '{parent}'")
    assert final == [("pretrain.loss", 2.5)]
    kept = sorted(file.name for file in (project / "mlartifacts").rglob("*") if file.is_file())
    assert kept == ["history.csv", "metrics.json", "params.yaml", "params.yaml"]


def test_sync_logs_reports_of_stages_that_did_not_run_unless_other_parameters_made_them(
    project: Path,
) -> None:
    write_reports(project, epochs=3)
    shutil.copytree(project / "reports" / "pretrain", project / "reports" / "finetune")
    lock = "stages: {finetune: {params: {params.yaml: {optimization: {max_epoch: 4}}}}}"
    (project / "dvc.lock").write_text(lock)
    said = sync(project)
    assert "pretrain: complete" in said
    assert "finetune: left out, made from other parameters (optimization.max_epoch)" in said
    assert "pretrain: complete" in sync(project)
    assert rows(project, "select count(*) from runs") == [(2,)]
    assert rows(project, "select count(*) from metrics where key = 'accuracy'") == [(3,)]


def test_ten_thousand_values_go_in_calls_of_at_most_a_thousand(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    from ecg_core import mlflow_writer

    sizes: list[int] = []
    log_batch = MlflowClient.log_batch

    def counted(client: MlflowClient, run_id: str, *, metrics: Any = (), **others: Any) -> None:
        sizes.append(len(metrics))
        log_batch(client, run_id, metrics=metrics, **others)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    write_reports(project, epochs=5000)  # of two values
    mlflow_writer.sync()
    assert [size for size in sizes if size] == [1000] * 10 + [1]  # and the final one's
    assert rows(project, "select count(*) from metrics") == [(10_001,)]


def test_a_server_that_is_down_is_said_once_and_the_stage_goes_on(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING), tracking.run("pretrain") as run:
        for epoch in range(3):
            run.log_metrics({"loss": 1.0}, step=epoch)
    assert [message.count("make mlflow-sync") for message in caplog.messages] == [1]
    assert "127.0.0.1" in caplog.messages[0]


def test_the_reason_is_the_error_and_not_the_advice_below_it(tmp_path: Path) -> None:
    log = tmp_path / "pretrain.log"
    log.write_text(
        "Traceback:\nsqlalchemy.exc.OperationalError: locked\n[SQL: select]\n(Background)\n"
    )
    assert tracking._reason(log) == "sqlalchemy.exc.OperationalError: locked"
    assert tracking._reason(tmp_path / "none.log") == "its writer ended"


@pytest.mark.parametrize("command", [["sleep", "600"], ["false"]], ids=["hangs", "dies"])
def test_a_writer_that_hangs_or_dies_never_blocks_a_row(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    command: list[str],
) -> None:
    def start(stage: str, started_ms: int) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        return process

    monkeypatch.setattr(tracking, "_start_writer", start)
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 0.05)
    with tracking.run("pretrain") as run:
        for epoch in range(2000):  # far more than a pipe holds
            run.log_metrics({f"metric_{number}": 0.5 for number in range(10)}, step=epoch)
    assert len(caplog.messages) == 1


def test_a_state_folder_that_cannot_be_written_stops_nothing(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (project / ".state").write_text("a file where the folder should be")
    with tracking.run("pretrain") as run:
        run.log_metrics({"loss": 1.0}, step=1)
    assert len(caplog.messages) == 1
    assert not (project / "mlflow.db").exists()


@pytest.mark.parametrize("reason", ["tracking is off", "second rank"])
def test_nothing_is_written_with_tracking_off_or_in_a_second_rank(
    project: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    if reason == "tracking is off":
        (project / "params.yaml").write_text(PARAMS.replace("mlflow: true", "mlflow: false"))
    else:
        monkeypatch.setenv("RANK", "1")
    with tracking.run("pretrain") as run:
        run.log_metrics({"loss": 1.0}, step=1)
        run.log_artifacts([Path("params.yaml")])
        run.log_tags({"device": "cpu"})
    assert [file.name for file in project.iterdir()] == ["params.yaml"]


def test_a_stage_that_tracks_does_not_import_mlflow_itself() -> None:
    code = "import sys, ecg_core.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
