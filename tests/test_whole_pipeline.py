"""The whole pipeline on a handful of real recordings, by the command that a person types."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from small_project import copy_project, make_project, run_stage, write_params

ROOT = Path(__file__).resolve().parent.parent
TREE = Path("challenge-2021/1.0.3")
CHOSEN = {
    "finetune_train": [
        *("cpsc_2018/g1/A0001", "cpsc_2018/g1/A0002", "cpsc_2018/g1/A0003"),
        *("georgia/g1/E07502", "georgia/g1/E07503", "cpsc_2018/g1/A0023"),
    ],
    "finetune_valid": ["cpsc_2018/g1/A0033", "cpsc_2018/g1/A0034"],
    "finetune_test": ["cpsc_2018/g1/A0038", "cpsc_2018/g1/A0039"],
}


def dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run dvc with this interpreter's programs first."""
    programs = Path(sys.executable).parent
    environment = {key: value for key, value in os.environ.items() if key != "ECG_DATA"}
    environment |= {"PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment |= {"DVC_NO_ANALYTICS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [str(programs / "dvc"), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def make_mirror(folder: Path) -> None:
    """Unpack the chosen records of the embedded sample as a mirror of their own."""
    names = [name for part in CHOSEN.values() for name in part]
    with tarfile.open(ROOT / "data/sample/ecg-sample.tar.xz") as archive:
        wanted = [
            member
            for member in archive.getmembers()
            if member.isfile() and member.name.rsplit(".", 1)[0].endswith(tuple(names))
        ]
        archive.extractall(folder, members=wanted, filter="data")
    files = sorted(path for path in (folder / TREE).rglob("*") if path.is_file())
    assert len(files) == 2 * len(names)
    sums = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(folder / TREE)}\n"
        for path in files
    ]
    (folder / TREE / "SHA256SUMS.txt").write_text("".join(sums))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project that has run through on ten recordings."""
    folder = tmp_path_factory.mktemp("whole") / "project"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("ecg_core", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    mirror = folder.parent / "mirror"
    make_mirror(mirror)
    (folder / "data/sample").mkdir(parents=True)
    with (folder / "parts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["part", "source", "record_id"])
        for part, names in CHOSEN.items():
            rows = [[part, name.split("/")[0], name.split("/")[2]] for name in names]
            writer.writerows(rows)
            if part == "finetune_train":
                writer.writerows([["pretrain", *row[1:]] for row in rows])
    write_params(
        folder,
        {
            "data.mirror": mirror.as_uri(),
            "data.datasets": [str(TREE)],
            "split.file": "parts.csv",
            "optimization.max_epoch": 2,
            "finetune.max_epoch": 2,
        },
    )
    assert dvc(folder, "init", "--no-scm", "-q").returncode == 0
    done = dvc(folder, "repro")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


def test_one_command_leads_from_records_to_scores_and_figures(project: Path) -> None:
    evaluated = json.loads((project / "reports/evaluate/metrics.json").read_text())["evaluate"]
    assert evaluated["recordings"] == 2
    assert evaluated["recording"]["cinc_of_sinus_for_everyone"] == 0
    index = (project / "reports/index.html").read_text()
    assert "<svg" in index
    assert len(list((project / "reports/report").glob("*.png"))) >= 3
    figures = {path.stem for path in (project / "reports/evaluate/figures").glob("*.svg")}
    assert {"scores", "per_class", "leads", "calibration"} <= figures


def test_a_second_repro_runs_nothing(project: Path) -> None:
    before = (project / "dvc.lock").read_bytes()
    done = dvc(project, "repro")
    assert "Running stage" not in done.stdout
    assert (project / "dvc.lock").read_bytes() == before


@pytest.mark.parametrize("name", ["figures.py", "evaluation_figures.py", "report_page.css"])
def test_an_edited_figure_reruns_only_check_and_report(project: Path, name: str) -> None:
    file = project / "ecg_core" / name
    before = file.read_bytes()
    file.write_bytes(before + (b"\n# another\n" if name.endswith(".py") else b"\n"))
    changed = json.loads(dvc(project, "status", "--json").stdout)
    file.write_bytes(before)
    assert set(changed) == {"check", "report"}  # check's output is always the same


def test_no_output_holds_a_path_of_this_machine(project: Path) -> None:
    outputs = [path for path in (project / "reports").rglob("*") if path.is_file()]
    outputs += list((project / "data").rglob("*.csv"))
    outputs += [path for path in (project / "models").rglob("*") if path.is_file()]
    assert len(outputs) > 20
    for path in outputs:
        assert f"{project}/".encode() not in path.read_bytes(), path


def test_a_misspelt_key_stops_the_run_before_anything_else(project: Path) -> None:
    params = project / "params.yaml"
    good = params.read_text()
    params.write_text(good.replace("  final_dropout:", "  final_dropuot:"))
    done = dvc(project, "repro")
    params.write_text(good)
    assert done.returncode != 0
    assert "finetune.final_dropuot: unknown key, expected 'final_dropout'?" in done.stderr
    assert "Running stage 'download'" not in done.stdout


def test_outputs_are_the_same_with_tracking_on_and_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    off = make_project(tmp_path / "off", {"optimization.max_epoch": 1})
    on = copy_project(off, tmp_path / "on")
    write_params(on, {"optimization.max_epoch": 1, "tracking.mlflow": True})
    for folder in (off, on):
        assert run_stage(folder, "pretrain").returncode == 0
    for name in ("models/pretrained/model.safetensors", "reports/pretrain/history.csv"):
        assert (on / name).read_bytes() == (off / name).read_bytes()
    assert (on / "mlflow.db").exists()
    assert not (off / "mlflow.db").exists()
