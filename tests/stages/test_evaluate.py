"""The stage on a handful of segments with an untrained model: files, counts, same bytes twice."""

import json
from pathlib import Path

import pandas as pd
import pytest

from ecg_core.metrics.cinc import cinc_score, load_weights
from tests.challenge_reader import score_answers, write_header
from tests.small_project import copy_project, run_stage, write_params
from tests.stages.example_data import example_project

CHANGES: dict[str, object] = {"evaluate.challenge_output": True, "evaluate.bootstrap": 5}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = example_project(tmp_path_factory.mktemp("evaluate") / "one", CHANGES)
    stage = run_stage(folder, "evaluate")
    assert stage.returncode == 0, stage.stderr
    return folder


def again(project: Path, target: Path, changes: dict[str, object]) -> Path:
    copy_project(project, target)
    (target / "models").symlink_to(project / "models")
    write_params(target, changes)
    stage = run_stage(target, "evaluate")
    assert stage.returncode == 0, stage.stderr
    return target / "reports/evaluate"


def test_metrics_count_recordings_segments_patients_and_unlabelled(project: Path) -> None:
    metrics = json.loads((project / "reports/evaluate/metrics.json").read_text())["evaluate"]
    assert (metrics["recordings"], metrics["segments"], metrics["patients"]) == (3, 6, 2)
    assert metrics["recordings_without_scored_label"] == 1
    assert len(metrics["classes_absent"].split()) == 24
    assert metrics["segment"]["loss_per_label"] > 0


def test_the_score_can_be_computed_again_from_the_predictions(project: Path) -> None:
    metrics = json.loads((project / "reports/evaluate/metrics.json").read_text())["evaluate"]
    for file, unit, rows in (("predictions", "recording", 3), ("segments", "segment", 6)):
        table = pd.read_csv(project / f"reports/evaluate/{file}.csv")
        assert len(table) == rows * 26
        for way, column in (("fixed", "decision"), ("class_tuned", "decision_class_tuned")):
            labels = table["label"].to_numpy().reshape(rows, 26) == 1
            decisions = table[column].to_numpy().reshape(rows, 26) == 1
            score = cinc_score(labels, decisions, load_weights())
            assert metrics[unit][f"cinc_{way}"] == pytest.approx(score, rel=1e-5)


def test_the_challenges_own_files_give_the_same_score(project: Path) -> None:
    metrics = json.loads((project / "reports/evaluate/metrics.json").read_text())["evaluate"]
    table = pd.read_csv(project / "data/manifest/manifest.csv", dtype=str, keep_default_na=False)
    for answer in (project / "reports/evaluate/challenge").iterdir():
        (classes,) = table.loc[table["record_id"] == answer.stem, "classes"]
        codes = [name.split("|")[-1] for name in classes.split()]
        write_header(project / "headers", answer.stem, codes)
    score = score_answers(project / "headers", project / "reports/evaluate/challenge")
    assert metrics["recording"]["cinc_fixed"] == pytest.approx(score, rel=1e-5)


def test_every_lead_set_and_source_has_its_row(project: Path) -> None:
    leads = pd.read_csv(project / "reports/evaluate/leads.csv")
    assert leads["leads"].to_list() == [n for n in (12, 6, 3, 2, 1) for _ in range(2)]
    assert leads["names"].iloc[4] == "I II V2"
    sources = pd.read_csv(project / "reports/evaluate/sources.csv")
    assert sources["source"].unique().tolist() == ["georgia", "ptb-xl"]
    assert len(list((project / "reports/evaluate/challenge").iterdir())) == 3


def test_a_second_run_writes_the_same_bytes(project: Path, tmp_path: Path) -> None:
    reports = again(project, tmp_path / "two", CHANGES)
    paths = [path for path in (project / "reports/evaluate").rglob("*") if path.is_file()]
    assert len(paths) == 11
    for path in paths:
        same = reports / path.relative_to(project / "reports/evaluate")
        assert same.read_bytes() == path.read_bytes()


def test_a_model_of_few_leads_is_given_no_other(project: Path, tmp_path: Path) -> None:
    changes = {**CHANGES, "finetune.leads_to_load": ["I", "II"], "evaluate.challenge_output": False}
    reports = again(project, tmp_path / "few", changes)
    leads = pd.read_csv(reports / "leads.csv")
    assert leads["names"].iloc[::2].to_list() == ["I II"] * 4 + ["I"]
    all_leads = pd.read_csv(project / "reports/evaluate/leads.csv")
    own = leads.query("leads == 12 and unit == 'segment'").iloc[0]
    same = all_leads.query("leads == 2 and unit == 'segment'").iloc[0]
    assert own["loss_per_label"] == same["loss_per_label"]
    assert not list((reports / "challenge").iterdir())
