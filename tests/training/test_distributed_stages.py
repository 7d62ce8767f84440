"""The stages in two processes, without a shared file system: the same mathematics, files, signals.

Most pairs are forked, as torchrun would start them; what the stages start themselves is at the end.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from side_by_side import run_pair, start_pair
from small_project import StageProcess, copy_project, make_project, run_stage, write_params

# three micro-batches: in epoch 1 updates of two and of one, in which a process has none; after it
# updates of three, of which the first process has two
CHANGES: dict[str, object] = {
    "distributed_training.distributed_world_size": 2,
    "optimization.update_freq": [1, 2],
    "finetune.update_freq": [2],
    "finetune.freeze": "none",
    "finetune.freeze_finetune_updates": 1,
    "finetune.encoder_layerdrop": 0.5,
    "finetune.dropout": 0.1,
}
MODELS = {"pretrain": "models/pretrained", "finetune": "models/finetuned"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which one process did everything."""
    folder = make_project(tmp_path_factory.mktemp("alone") / "project", CHANGES)
    for stage in MODELS:
        done = run_stage(folder, stage)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pair(alone: Path) -> Path:
    """The same project in two processes; the second one's folder is `other` beside it."""
    folder = copy_project(alone, alone.parent / "pair")
    for stage in MODELS:
        other = folder.parent / f"other-{stage}"
        done = run_pair(folder, other, stage)
        assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
        assert done[1].stderr == ""
        assert not (other / ".state").exists()
        assert not (other / MODELS[stage]).exists()
        assert not (other / "reports" / stage).exists()
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def first_save(folder: Path, stage: str, process: StageProcess) -> None:
    while process.returncode is None:
        if list((folder / ".state").glob(f"{stage}-*/state-*.pt")):
            return
        time.sleep(0.001)
    pytest.fail(process.stderr)


@pytest.mark.parametrize("stage", list(MODELS))
def test_two_processes_make_the_model_of_one(alone: Path, pair: Path, stage: str) -> None:
    # dropout, Gumbel noise, span and lead masks, layer drop belong to the micro-batch
    one, two = (load_file(folder / MODELS[stage] / "model.safetensors") for folder in (alone, pair))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-6, msg=name)
    told = [pd.read_csv(folder / "reports" / stage / "history.csv") for folder in (alone, pair)]
    pd.testing.assert_frame_equal(*told, rtol=1e-4)
    assert len(told[0]) == 3


def test_gathering_goes_through_turns_without_a_micro_batch_and_has_more_to_compare(
    pair: Path, tmp_path: Path
) -> None:
    folder = copy_project(pair, tmp_path / "project")
    write_params(folder, {**CHANGES, "criterion.gather": True})
    done = run_pair(folder, tmp_path / "other", "pretrain")
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    within, over = (
        pd.read_csv(one / "reports/pretrain/history.csv")["loss_cmsc"] for one in (pair, folder)
    )
    # chance is log2 of the candidates: 4 pairs of a micro-batch, or 8 of the two side by side
    assert (over - within > 0.5).all()


def test_two_killed_processes_go_on_and_end_with_the_very_same_files(
    pair: Path, tmp_path: Path
) -> None:
    folder = copy_project(pair, tmp_path / "project")
    killed = start_pair(folder, tmp_path / "other", "pretrain")
    first_save(folder, "pretrain", killed[0])
    for process in killed:
        process.send_signal(signal.SIGKILL)
    for process in killed:
        process.end()
    assert not (folder / "models/pretrained").exists(), "killed too late"
    again = run_pair(folder, tmp_path / "other", "pretrain")
    assert "going on from" in again[0].stderr
    assert [process.returncode for process in again] == [0, 0]
    assert files(folder / "models/pretrained") == files(pair / "models/pretrained")
    assert files(folder / "reports/pretrain") == files(pair / "reports/pretrain")


def test_a_signal_to_one_process_stops_both_after_the_same_update(
    pair: Path, tmp_path: Path
) -> None:
    folder = copy_project(pair, tmp_path / "project")
    both = start_pair(folder, tmp_path / "other", "pretrain")
    first_save(folder, "pretrain", both[0])
    both[1].send_signal(signal.SIGTERM)
    codes = [process.end().returncode for process in both]
    assert codes == [128 + signal.SIGTERM] * 2, both[0].stderr
    assert "stopped by signal 15; the state is saved" in both[0].stderr
    assert both[1].stderr == ""
    assert [p.returncode for p in run_pair(folder, tmp_path / "other", "pretrain")] == [0, 0]
    assert files(folder / "models/pretrained") == files(pair / "models/pretrained")


def test_a_state_of_two_processes_is_good_for_one_which_says_so(pair: Path, tmp_path: Path) -> None:
    folder = copy_project(pair, tmp_path / "project")
    both = start_pair(folder, tmp_path / "other", "pretrain")
    first_save(folder, "pretrain", both[0])
    both[0].send_signal(signal.SIGINT)
    assert [process.end().returncode for process in both] == [130, 130]
    done = run_stage(folder, "pretrain")
    assert done.returncode == 0
    assert "the state is of 2 processes, now there are 1" in done.stderr


def launch(folder: Path, **environment: str) -> "subprocess.Popen[str]":
    """Start pretraining as a person does."""
    return subprocess.Popen(
        [sys.executable, "-m", "stages.pretrain"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "DVC_ROOT": str(folder), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def launched(alone: Path) -> Path:
    """A project whose stages start two processes themselves."""
    return make_project(
        alone.parent / "launched",
        {**CHANGES, "distributed_training.processes": 2, "optimization.max_epoch": 4000},
    )


def test_started_processes_save_at_a_signal_to_the_stage_and_leave_with_its_status(
    launched: Path,
) -> None:
    stage = launch(launched)
    while not list((launched / ".state").glob("pretrain-*/state-*.pt")):
        time.sleep(0.01)
        assert stage.poll() is None
    asked_at = time.monotonic()
    stage.send_signal(signal.SIGTERM)
    said = stage.communicate()[1]
    assert time.monotonic() - asked_at < 10
    assert stage.returncode == 128 + signal.SIGTERM
    assert said.splitlines() == [
        "4 micro-batches an update, on 2 processes (2, 0 GPUs), 2 in turn",
        "stopped by signal 15; the state is saved",
    ]


def test_a_killed_process_ends_the_run_with_one_line_that_says_so(launched: Path) -> None:
    stage = launch(launched)
    children: list[str] = []
    while len(children) < 2:
        time.sleep(0.05)
        children = Path(f"/proc/{stage.pid}/task/{stage.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    said = stage.communicate()[1].splitlines()
    assert stage.returncode == 128 + signal.SIGKILL
    assert [line for line in said if "error" in line] == [
        "error: process 1 of 2: expected it to end by itself, found it killed by SIGKILL; the "
        "others were ended"
    ]
    assert not (launched / "models").exists()


def test_a_nan_ends_started_processes_with_one_message(launched: Path) -> None:
    gains = launched / "data/segments/gains.f32"
    whole = gains.read_bytes()
    broken = np.frombuffer(whole, "<f4").copy()
    broken[:12] = np.nan
    gains.write_bytes(broken.tobytes())
    stage = launch(launched)
    said = stage.communicate()[1]
    gains.write_bytes(whole)
    assert stage.returncode == 1
    assert said.count("georgia/E00000:0") == 1
    assert said.count("error: update 0 (epoch 1)") == 1
    assert "Traceback" not in said
