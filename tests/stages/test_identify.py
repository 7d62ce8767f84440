"""The stage on two patients with two recordings and two to train on."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.small_project import copy_project, run_stage, write_params
from tests.stages.example_data import example_project

PARTS = ("train", "train", "gallery", "probe", "gallery", "probe")
PATIENTS = ("a", "b", "p", "p", "q", "q")
CHANGES: dict[str, object] = {"identify.bootstrap": 5, "identify.batch_size": 2}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("identify") / "one"
    example_project(folder, CHANGES, identify=PARTS, patients=PATIENTS)
    stage = run_stage(folder, "identify")
    assert stage.returncode == 0, stage.stderr
    return folder


def again(project: Path, target: Path, changes: dict[str, object]) -> Path:
    copy_project(project, target)
    (target / "models").mkdir()
    (target / "models/pretrained").symlink_to(project / "models/pretrained")
    write_params(target, {**CHANGES, **changes})
    stage = run_stage(target, "identify")
    assert stage.returncode == 0, stage.stderr
    return target


def metrics_of(folder: Path) -> dict[str, float]:
    text = (folder / "reports/identify/metrics.json").read_text()
    metrics: dict[str, float] = json.loads(text)["identify"]
    return metrics


def test_metrics_have_accuracies_chance_and_error_rate(project: Path) -> None:
    metrics = metrics_of(project)
    assert (metrics["patients"], metrics["chance_top1"], metrics["chance_top5"]) == (2, 0.5, 1.0)
    assert metrics["top5"] == 1.0
    assert {"top1_low", "top1_high", "equal_error_rate", "train_loss"} <= set(metrics)


def test_history_has_an_epoch_a_row_and_leads_a_set_a_row(project: Path) -> None:
    history = pd.read_csv(project / "reports/identify/history.csv")
    assert history["epoch"].to_list() == [1, 2]
    assert {"train_loss", "train_accuracy", "probe_top1"} <= set(history)
    leads = pd.read_csv(project / "reports/identify/leads.csv")
    assert leads["leads"].to_list() == [12, 6, 3, 2, 1]
    assert leads["top1"].iloc[0] == metrics_of(project)["top1"]


def test_matches_pair_each_probe_with_its_patients_gallery_recording(project: Path) -> None:
    matches = pd.read_csv(project / "reports/identify/matches.csv")
    # sorted by source: georgia's R5 before ptb-xl's R3
    assert matches["patient"].to_list() == ["q", "p"]
    assert matches["probe"].to_list() == ["R5", "R3"]
    assert matches["gallery"].to_list() == ["R4", "R2"]


def test_a_second_run_writes_the_same_bytes(project: Path, tmp_path: Path) -> None:
    other = again(project, tmp_path / "two", {})
    for name in ("metrics.json", "history.csv", "leads.csv", "matches.csv"):
        path = Path("reports/identify") / name
        assert (other / path).read_bytes() == (project / path).read_bytes()
    model = Path("models/identify/model.safetensors")
    assert (other / model).read_bytes() == (project / model).read_bytes()


def test_a_crop_is_another_window_than_the_segments_mean(project: Path, tmp_path: Path) -> None:
    other = again(project, tmp_path / "crop", {"identify.crop": True})
    path = Path("reports/identify/matches.csv")
    cosines = [pd.read_csv(folder / path)["cosine"].to_list() for folder in (project, other)]
    assert cosines[0] != cosines[1]


def test_a_frozen_random_encoder_learns_directions_only(project: Path, tmp_path: Path) -> None:
    other = again(project, tmp_path / "frozen", {"identify.init": "random_frozen"})
    history = pd.read_csv(other / "reports/identify/history.csv")
    assert history["probe_top1"].nunique() == 1


def test_without_known_patients_the_outputs_are_there_and_say_so(tmp_path: Path) -> None:
    folder = example_project(tmp_path / "none", CHANGES)
    assert run_stage(folder, "identify").returncode == 0
    assert metrics_of(folder) == {"patients": 0}
    assert (folder / "models/identify").is_dir()
    assert pd.read_csv(folder / "reports/identify/leads.csv").empty
