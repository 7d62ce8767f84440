"""Whatever happens to a training: one clear line, and only the work since the last save is lost."""

import errno
import os
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import psutil
import pytest

from ecg_core.segments import SegmentStore
from ecg_core.training.checkpoint import StateFolder, code_of, digest
from small_project import ROOT, StageProcess, copy_project, make_project, run_stage, write_params
from stage_imports import needed_files

LONG = {"optimization.max_epoch": 10}
MODELS = {"pretrain": "models/pretrained", "finetune": "models/finetuned"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which both trainings ran through undisturbed."""
    folder = make_project(tmp_path_factory.mktemp("whole") / "project", LONG)
    for stage in MODELS:
        done = run_stage(folder, stage)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def project(whole: Path, tmp_path: Path) -> Path:
    """The same project, in which nothing has been trained."""
    return copy_project(whole, tmp_path / "project")


def results(folder: Path, stage: str) -> dict[str, bytes]:
    places = [folder / MODELS[stage], folder / "reports" / stage]
    return {file.name: file.read_bytes() for place in places for file in sorted(place.iterdir())}


def states(folder: Path, stage: str = "pretrain") -> list[Path]:
    return sorted((folder / ".state").glob(f"{stage}-*/state-*.pt"))


def halves(folder: Path) -> list[Path]:
    return [*folder.rglob("*.tmp")]


def wait_until(happens: Callable[[], object], process: StageProcess) -> None:
    until = time.monotonic() + 60
    while not happens():
        if process.returncode is not None or time.monotonic() > until:
            process.process.kill()
            pytest.fail(process.stderr)
        time.sleep(0.002)


def started(folder: Path, stage: str = "pretrain") -> StageProcess:
    """Start a stage and return as soon as it has saved a state."""
    process = StageProcess(folder, stage)
    wait_until(lambda: states(folder, stage), process)
    return process


def limit_files(process: StageProcess, n_bytes: int) -> None:
    """Let a process write no file of more bytes: the kernel refuses it as it does a full disk."""
    pid = process.process.pid or 0
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (n_bytes, hard))


@contextmanager
def small_disk(folder: Path, n_bytes: int) -> Iterator[None]:
    """Put a disk of so many bytes in a folder's place, which takes root; skip where that fails."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk could be mounted: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def small_files(n_bytes: int) -> Iterator[None]:
    """Let the stages that are started here write no file of more bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write in a folder; root needs a mount for that, others permissions."""
    folder.mkdir(parents=True)
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    made = subprocess.run(["mount", "--bind", str(folder), str(folder)], check=False)
    if made.returncode:
        pytest.skip("root writes everywhere, and nothing may be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def the_line(process: StageProcess) -> str:
    """Return the one line of an error that a stage ended with."""
    assert process.returncode == 1, process.stderr
    assert "Traceback" not in process.stderr
    lines = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, process.stderr
    assert process.stderr.rstrip().endswith(lines[0])
    return lines[0]


@pytest.mark.parametrize("stage", list(MODELS))
def test_a_disk_that_is_full_for_a_while_costs_a_line_a_save_and_nothing_else(
    whole: Path, project: Path, stage: str
) -> None:
    if stage == "finetune":
        shutil.copytree(whole / "models/pretrained", project / "models/pretrained")
        write_params(project, {"finetune.max_epoch": 8})
        reference = copy_project(project, project.parent / "reference")
        shutil.copytree(whole / "models/pretrained", reference / "models/pretrained")
        assert run_stage(reference, stage).returncode == 0
    else:
        reference = whole
    process = started(project, stage)
    process.send_signal(signal.SIGSTOP)
    before = states(project, stage)[-1]
    content = before.read_bytes()
    limit_files(process, len(content) - 1000)  # a model fits, a state does not
    process.send_signal(signal.SIGCONT)
    wait_until(lambda: "going on, with state-" in process.stderr, process)
    assert states(project, stage)[-1].read_bytes() == content or states(project, stage)[-1] > before
    assert halves(project) == []
    limit_files(process, resource.RLIM_INFINITY)
    assert process.end().returncode == 0, process.stderr
    said = [line for line in process.stderr.splitlines() if "going on, with" in line]
    assert all(
        re.fullmatch(
            r"\S+state-\d{6}-000000.pt: expected to write this file, found: File too large; "
            r"going on, with state-\d{6}-000000.pt as the last saved",
            line,
        )
        for line in said
    ), said
    assert results(project, stage) == results(reference, stage)
    assert halves(project) == []


@pytest.mark.parametrize("disk", ["a small disk", "a limit of file size"])
def test_a_run_whose_first_state_does_not_fit_ends_and_a_second_start_is_undisturbed(
    whole: Path, project: Path, disk: str
) -> None:
    fault = (
        small_disk(project / ".state", 50_000)
        if disk == "a small disk"
        else small_files(n_bytes=50_000)
    )
    with fault:
        line = the_line(run_stage(project, "pretrain"))
        assert halves(project) == []
        assert states(project) == []
    reason = "No space left on device" if disk == "a small disk" else "File too large"
    assert re.search(rf"\.state/pretrain-\S+/state-000001-000000.pt: .*, found: {reason}$", line)
    assert run_stage(project, "pretrain").returncode == 0
    assert results(project, "pretrain") == results(whole, "pretrain")


def test_a_best_model_that_does_not_fit_ends_the_run_and_a_second_start_has_it(
    whole: Path, project: Path
) -> None:
    shutil.copytree(whole / "models/pretrained", project / "models/pretrained")
    with small_files(n_bytes=10_000):
        line = the_line(run_stage(project, "finetune"))
    assert re.search(r"\.state/finetune-\S+/best_\w+@000001.safetensors: .*File too large", line)
    assert halves(project) == []
    assert run_stage(project, "finetune").returncode == 0
    assert results(project, "finetune") == results(whole, "finetune")


def test_outputs_that_do_not_fit_are_written_by_a_second_start_that_trains_nothing(
    whole: Path, project: Path
) -> None:
    with small_disk(project / "models", 10_000):
        line = the_line(run_stage(project, "pretrain"))
        assert halves(project) == []
    assert re.search(r"models/pretrained/model.safetensors: .*No space left on device", line)
    again = run_stage(project, "pretrain")
    assert "going on from" in again.stderr
    assert "state-000010-000000" in again.stderr
    assert results(project, "pretrain") == results(whole, "pretrain")


def test_sigterm_on_a_full_disk_says_that_nothing_was_saved(whole: Path, project: Path) -> None:
    process = started(project)
    process.send_signal(signal.SIGSTOP)
    limit_files(process, 50_000)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    assert process.end().returncode == 128 + signal.SIGTERM
    assert "stopped by signal 15; the state is not saved" in process.stderr
    assert run_stage(project, "pretrain").returncode == 0
    assert results(project, "pretrain") == results(whole, "pretrain")


def test_a_state_folder_that_nobody_can_write_ends_the_run_before_it_trains(project: Path) -> None:
    with read_only(project / ".state"):
        line = the_line(run_stage(project, "pretrain"))
    assert re.search(r"\.state/pretrain-\w+: expected a folder to save states in, found: ", line)
    assert "epoch" not in line
    assert not (project / "models").exists()


def test_a_file_in_the_state_folders_place_ends_the_run_before_it_trains(project: Path) -> None:
    (project / ".state").write_text("not a folder")
    line = the_line(run_stage(project, "pretrain"))
    assert re.search(r"\.state/pretrain-\w+: .* found: Not a directory", line)


def test_halves_that_a_killed_run_left_are_removed(project: Path) -> None:
    process = started(project)
    process.send_signal(signal.SIGKILL)
    process.end()
    left = states(project)[0].with_name("state-000009-000001.pt.tmp")
    left.write_bytes(b"half a state")
    assert run_stage(project, "pretrain").returncode == 0
    assert halves(project) == []


def test_a_run_without_any_whole_state_starts_anew(whole: Path, project: Path) -> None:
    process = started(project)
    wait_until(lambda: len(states(project)) == 2, process)
    process.send_signal(signal.SIGKILL)
    process.end()
    first, second = states(project)
    first.write_bytes(first.read_bytes()[:-1])
    damaged = bytearray(second.read_bytes())
    damaged[len(damaged) // 2] ^= 1  # a bit that turned over
    second.write_bytes(damaged)
    done = run_stage(project, "pretrain")
    assert done.returncode == 0
    assert done.stderr.count("found it torn") == 2
    assert "going on from" not in done.stderr
    assert results(project, "pretrain") == results(whole, "pretrain")


def test_segments_that_cannot_be_read_end_the_run_from_within_a_thread(
    whole: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reads = SegmentStore.read, 0

    def fail_at_the_tenth(store: SegmentStore, rows: np.ndarray) -> np.ndarray:
        nonlocal reads
        reads += 1
        if reads == 10:
            raise OSError(errno.EIO, os.strerror(errno.EIO), "data/segments/signals.i16")
        return read(store, rows)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentStore, "read", fail_at_the_tenth)
        line = the_line(run_stage(project, "pretrain"))
    assert line == (
        "error: data/segments/signals.i16: expected to read segments, found: Input/output error"
    )
    assert states(project), "the epochs before the fault are saved"
    again = run_stage(project, "pretrain")
    assert "going on from" in again.stderr
    assert results(project, "pretrain") == results(whole, "pretrain")


def writer_of(process: StageProcess) -> psutil.Process | None:
    """Return the process that writes to MLflow for a stage."""
    for child in psutil.Process(process.process.pid).children():
        if "ecg_core.mlflow_writer" in child.cmdline():
            return child
    return None


def logged_epochs(folder: Path) -> list[int]:
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        return [step for (step,) in store.execute("select step from metrics where key = 'lr'")]


def test_a_killed_mlflow_writer_costs_a_line_and_its_epochs_come_from_the_reports(
    whole: Path, project: Path
) -> None:
    write_params(project, {**LONG, "tracking.mlflow": True})
    process = started(project)
    process.send_signal(signal.SIGSTOP)
    writer = writer_of(process)
    assert writer is not None
    writer.kill()
    process.send_signal(signal.SIGCONT)
    assert process.end().returncode == 0, process.stderr
    assert len(re.findall(r"^MLflow: logging of pretrain stopped", process.stderr, re.M)) == 1
    assert "Traceback" not in process.stderr
    assert results(project, "pretrain") == results(whole, "pretrain")
    subprocess.run(
        [sys.executable, "-m", "ecg_core.mlflow_writer", "sync"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(project)},
        capture_output=True,
        check=True,
    )
    assert sorted(logged_epochs(project)) == list(range(1, 11))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """MLflow's own server on a free port: its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = f"sqlite:///{tmp_path}/server.db"
    command = ["mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--backend-store-uri", store],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 120
    try:
        while not answers(address):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        yield address, process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address: str) -> bool:
    try:
        with urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, ConnectionError, TimeoutError):
        return False


@pytest.mark.slow
def test_a_server_killed_in_the_middle_costs_a_line(
    whole: Path,
    project: Path,
    server: tuple[str, subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, serving = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    write_params(project, {**LONG, "tracking.mlflow": True})
    process = started(project)
    process.send_signal(signal.SIGSTOP)
    store = project.parent / "server.db"
    with closing(sqlite3.connect(store)) as served:
        wait_until(
            lambda: served.execute("select * from runs where name = 'pretrain'").fetchall(), process
        )
    os.killpg(serving.pid, signal.SIGKILL)
    process.send_signal(signal.SIGCONT)
    assert process.end().returncode == 0, process.stderr
    assert len(re.findall(r"^MLflow: logging of pretrain stopped", process.stderr, re.M)) == 1
    assert "Traceback" not in process.stderr
    assert results(project, "pretrain") == results(whole, "pretrain")


@pytest.mark.parametrize(
    "schedule",
    [
        {"lr_scheduler.force_anneal": 2, "lr_scheduler.warmup_updates": 2},
        {"lr_scheduler._name": "tri_stage", "optimization.max_update": 12},
    ],
    ids=["force_anneal", "tri_stage"],
)
def test_more_epochs_go_on_under_every_schedule(
    whole: Path, project: Path, schedule: dict[str, object]
) -> None:
    unbroken = copy_project(whole, project.parent / "unbroken")
    write_params(unbroken, {**schedule, "optimization.max_epoch": 4})
    assert run_stage(unbroken, "pretrain").returncode == 0
    for epochs in (2, 4):
        write_params(project, {**schedule, "optimization.max_epoch": epochs})
        done = run_stage(project, "pretrain")
        assert done.returncode == 0, done.stderr
    assert "state-000002-000000" in done.stderr
    assert results(project, "pretrain") == results(unbroken, "pretrain")


def test_other_phases_of_tri_stage_are_another_run(project: Path) -> None:
    for updates in (6, 12):
        changes = {"lr_scheduler._name": "tri_stage", "optimization.max_update": updates}
        write_params(project, changes)
        done = run_stage(project, "pretrain")
        assert done.returncode == 0, done.stderr
    assert "going on from" not in done.stderr


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "identify"])
def test_a_change_in_any_file_that_a_stage_needs_is_another_code(
    project: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    tracking = frozenset({Path("ecg_core/tracking.py")})  # changes no result
    needed = needed_files(Path(f"stages/{stage}.py"), without=tracking)
    assert {Path("ecg_core/seeds.py"), Path("ecg_core/segments.py")} <= needed
    for name in ("ecg_core", "stages"):
        (project / name).unlink()
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, project / name, ignore=ignored)
    monkeypatch.chdir(project)
    before = digest(code_of(stage), "*.py")
    for file in sorted(needed):
        content = file.read_bytes()
        file.write_bytes(content + b"\n")
        assert digest(code_of(stage), "*.py") != before, file
        file.write_bytes(content)
    assert digest(code_of(stage), "*.py") == before


def test_a_state_of_another_code_is_not_picked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    old, new = (StateFolder("pretrain", {"code": code}) for code in ("old", "new"))
    assert old.save({"epoch": 1, "updates_in_epoch": 0})
    assert old.load(max_epoch=1) == {"epoch": 1, "updates_in_epoch": 0}
    assert new.load(max_epoch=1) is None


@pytest.mark.slow
def test_processes_whose_starter_is_killed_while_they_import_end_too(project: Path) -> None:
    two = {"distributed_training.processes": 2, "distributed_training.distributed_world_size": 2}
    write_params(project, {**LONG, **two})
    starter = subprocess.Popen(
        [sys.executable, "-m", "stages.pretrain"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), "DVC_ROOT": str(project)},
        stderr=subprocess.DEVNULL,
    )
    started: list[psutil.Process] = []
    while len(started) < 2:
        assert starter.poll() is None
        started = psutil.Process(starter.pid).children()
        time.sleep(0.01)
    starter.kill()
    starter.wait()
    _, left = psutil.wait_procs(started, timeout=60)
    for process in left:
        process.kill()
    assert left == []
