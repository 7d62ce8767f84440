"""A killed run goes on and ends with the weights of one that was never killed."""

import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from small_project import StageProcess, copy_project, make_project, run_stage, write_params

MODELS = {"pretrain": "models/pretrained", "finetune": "models/finetuned"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which both trainings ran through without interruption."""
    folder = make_project(tmp_path_factory.mktemp("whole") / "project", {})
    for stage in MODELS:
        done = run_stage(folder, stage)
        assert done.returncode == 0, done.stderr
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def started(folder: Path, stage: str) -> StageProcess:
    """Start a stage and return as soon as its first epoch is saved."""
    process = StageProcess(folder, stage)
    while process.returncode is None and not list(
        (folder / ".state").glob(f"{stage}-*/state-*.pt")
    ):
        time.sleep(0.001)
    if process.returncode:
        pytest.fail(process.stderr)
    return process


def kill(process: StageProcess) -> None:
    process.send_signal(signal.SIGKILL)
    process.end()


@pytest.mark.parametrize("stage", list(MODELS))
def test_a_run_killed_in_the_middle_ends_with_the_very_same_files(
    whole: Path, tmp_path: Path, stage: str
) -> None:
    folder = copy_project(whole, tmp_path / "project")
    if stage == "finetune":
        assert run_stage(folder, "pretrain").returncode == 0
    kill(started(folder, stage))
    assert not (folder / MODELS[stage] / "model.safetensors").exists(), "killed too late"
    again = run_stage(folder, stage)
    assert again.returncode == 0, again.stderr
    assert "going on from" in again.stderr
    assert files(folder / MODELS[stage]) == files(whole / MODELS[stage])
    assert files(folder / "reports" / stage) == files(whole / "reports" / stage)


def test_sigterm_saves_in_the_middle_of_an_epoch_and_leaves(whole: Path, tmp_path: Path) -> None:
    folder = copy_project(whole, tmp_path / "project")
    process = started(folder, "pretrain")
    process.send_signal(signal.SIGTERM)
    if process.end().returncode != 0:  # it may have been in its last update
        assert process.returncode == 128 + signal.SIGTERM, process.stderr
        assert "the state is saved" in process.stderr
    assert run_stage(folder, "pretrain").returncode == 0
    assert files(folder / MODELS["pretrain"]) == files(whole / MODELS["pretrain"])


def test_a_longer_run_goes_on_from_a_finished_shorter_one(whole: Path, tmp_path: Path) -> None:
    # the learning rate depends on the update alone: 3 epochs are the beginning of 5
    long = copy_project(whole, tmp_path / "long")
    write_params(long, {"optimization.max_epoch": 5})
    assert run_stage(long, "pretrain").returncode == 0
    folder = copy_project(whole, tmp_path / "project")
    assert run_stage(folder, "pretrain").returncode == 0
    write_params(folder, {"optimization.max_epoch": 5})
    done = run_stage(folder, "pretrain")
    assert "going on from" in done.stderr
    assert "state-000003" in done.stderr
    assert files(folder / MODELS["pretrain"]) == files(long / MODELS["pretrain"])
    epochs = pd.read_csv(folder / "reports/pretrain/history.csv")["epoch"]
    assert epochs.tolist() == [1, 2, 3, 4, 5]


def test_other_parameters_never_pick_up_a_state(whole: Path, tmp_path: Path) -> None:
    folder = copy_project(whole, tmp_path / "project")
    kill(started(folder, "pretrain"))
    write_params(folder, {"common.seed": 2})
    done = run_stage(folder, "pretrain")
    assert done.returncode == 0
    assert "going on from" not in done.stderr
    assert len(list((folder / ".state").glob("pretrain-*"))) == 2


def test_a_torn_state_falls_back_to_the_one_before(whole: Path, tmp_path: Path) -> None:
    folder = copy_project(whole, tmp_path / "project")
    write_params(folder, {"optimization.max_epoch": 2})
    assert run_stage(folder, "pretrain").returncode == 0
    write_params(folder, {})
    newest = max((folder / ".state").glob("pretrain-*/state-*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    done = run_stage(folder, "pretrain")
    assert "torn" in done.stderr
    assert "state-000001" in done.stderr
    assert files(folder / MODELS["pretrain"]) == files(whole / MODELS["pretrain"])


def test_a_finished_run_that_is_forced_starts_anew(whole: Path, tmp_path: Path) -> None:
    folder = copy_project(whole, tmp_path / "project")
    for _ in range(2):
        done = run_stage(folder, "pretrain")
        assert done.returncode == 0
        assert "going on from" not in done.stderr


def test_a_shorter_run_keeps_its_own_states_beside_a_finished_longer_one(
    whole: Path, tmp_path: Path
) -> None:
    folder = copy_project(whole, tmp_path / "project")
    assert run_stage(folder, "pretrain").returncode == 0
    write_params(folder, {"optimization.max_epoch": 1})
    assert run_stage(folder, "pretrain").returncode == 0
    states = sorted(path.name for path in (folder / ".state").glob("pretrain-*/state-*.pt"))
    epochs = [int(name.split("-")[1]) for name in states]
    assert epochs == [1, 3]


def test_two_runs_never_share_a_state(whole: Path, tmp_path: Path) -> None:
    folder = copy_project(whole, tmp_path / "project")
    write_params(folder, {"optimization.max_epoch": 1000})
    first = started(folder, "pretrain")
    second = run_stage(folder, "pretrain")
    kill(first)
    assert second.returncode == 1
    assert "another run" in second.stderr


def test_kept_epochs_are_the_models_of_those_epochs(whole: Path, tmp_path: Path) -> None:
    folder = copy_project(whole, tmp_path / "project")
    write_params(folder, {"checkpoint.keep_epochs": [1, 3]})
    assert run_stage(folder, "pretrain").returncode == 0
    kept = files(folder / MODELS["pretrain"])
    assert list(kept) == ["epoch-0001.safetensors", "epoch-0003.safetensors", "model.safetensors"]
    assert kept["epoch-0003.safetensors"] == kept["model.safetensors"]
    short = copy_project(whole, tmp_path / "short")
    write_params(short, {"optimization.max_epoch": 1})
    assert run_stage(short, "pretrain").returncode == 0
    first = files(short / MODELS["pretrain"])["model.safetensors"]
    assert kept["epoch-0001.safetensors"] == first


def test_a_nan_stops_with_the_update_the_terms_and_the_recordings(
    whole: Path, tmp_path: Path
) -> None:
    folder = copy_project(whole, tmp_path / "project")
    gains = folder / "data/segments/gains.f32"
    broken = np.fromfile(gains, "<f4")
    broken[:12] = np.nan
    broken.tofile(gains)
    done = run_stage(folder, "pretrain")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "update " in done.stderr
    assert "loss_infonce" in done.stderr
    assert "georgia/E00000:0" in done.stderr
