"""Stages, figures and report with models and parts at the edge: defined answers, no warning.

Warnings are errors in the stages here too, which are forked from this process.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ecg_core.classes import SINUS_CLASS
from ecg_core.figures import figure_bytes
from ecg_core.models.classifier import Classifier, load_classifier, save_classifier
from ecg_core.report_content import build_page, draw_all
from ecg_core.report_inputs import read_inputs
from ecg_core.report_page import to_html
from tests.report_example import write_identification, write_project
from tests.small_project import run_stage
from tests.stages.example_data import example_project

CHANGES: dict[str, object] = {"evaluate.bootstrap": 5, "identify.bootstrap": 5}


def untrained(classifier: Classifier) -> None:
    """Leave the random weights."""


def always(*classes: int) -> Callable[[Classifier], None]:
    def change(classifier: Classifier) -> None:
        torch.nn.init.zeros_(classifier.proj.weight)
        torch.nn.init.constant_(classifier.proj.bias, -200.0)
        classifier.proj.bias.data[list(classes)] = 200.0

    return change


MODELS = {
    "an untrained model": untrained,
    "nothing predicted": always(),
    "one class only": always(SINUS_CLASS),
    "every class": always(*range(26)),
}


def keep_one_recording_a_part(folder: Path) -> None:
    path = folder / "data/split/split.csv"
    split = pd.read_csv(path, dtype=str, keep_default_na=False)
    others = split["record_id"].isin(["R2", "R4", "R5"])  # leaves R1 in valid, R3 in test
    split.loc[others, "finetune"] = ""
    split.to_csv(path, index=False)


def evaluated(folder: Path, change: Callable[[Classifier], None], single: bool) -> dict[str, Any]:
    example_project(folder, CHANGES)
    if single:
        keep_one_recording_a_part(folder)
    model = folder / "models/finetuned/model.safetensors"
    classifier = load_classifier(model)
    change(classifier)
    save_classifier(model, classifier)
    stage = run_stage(folder, "evaluate")
    assert stage.returncode == 0, stage.stderr
    assert "Warning" not in stage.stderr
    metrics: dict[str, Any] = json.loads((folder / "reports/evaluate/metrics.json").read_text())
    return metrics["evaluate"]


def report_on(folder: Path, stages: Path) -> str:
    """Return the report page on what the stages of another project left."""
    folder.mkdir()
    write_project(folder)
    write_identification(folder)
    shutil.copytree(stages / "reports", folder / "reports", dirs_exist_ok=True)
    inputs = read_inputs(folder)
    figures = draw_all(inputs).items()
    return to_html(build_page(inputs, {p: figure_bytes(f, "svg").decode() for p, f in figures}))


@pytest.mark.parametrize("single", [False, True], ids=["three recordings", "a single recording"])
@pytest.mark.parametrize("name", MODELS)
def test_an_odd_model_is_scored_and_reported(tmp_path: Path, name: str, single: bool) -> None:
    metrics = evaluated(tmp_path / "project", MODELS[name], single)
    recording, ends = metrics["recording"], metrics["interval"]["recording"]
    assert metrics["recordings"] == (1 if single else 3)
    trivial = {"nothing predicted": "nothing_predicted", "one class only": "sinus_for_everyone"}
    if name in trivial:
        assert recording["cinc_fixed"] == recording[f"cinc_of_{trivial[name]}"]
        assert ends["cinc_fixed"]["low"] <= recording["cinc_fixed"] <= ends["cinc_fixed"]["high"]
        assert recording["auroc_micro"] is None or 0 <= recording["auroc_micro"] <= 1
    if single:  # R3 has no label: no class has a positive
        assert recording["auroc_macro"] is None
        assert recording["cinc_fixed"] == 0.0
    page = report_on(tmp_path / "report", tmp_path / "project")
    assert page.count("<svg ") == 9
    assert not re.search(r">-?nan\b", page, re.IGNORECASE)


def identified(folder: Path) -> dict[str, Any]:
    stage = run_stage(folder, "identify")
    assert stage.returncode == 0, stage.stderr
    assert "Warning" not in stage.stderr
    metrics: dict[str, Any] = json.loads((folder / "reports/identify/metrics.json").read_text())
    return metrics["identify"]


def test_a_single_patient_is_found_and_has_no_strangers(tmp_path: Path) -> None:
    parts = ("train", "train", "train", "train", "gallery", "probe")
    folder = example_project(tmp_path / "one", CHANGES, identify=parts, patients=tuple("abcdpp"))
    found = identified(folder)
    assert (found["patients"], found["top1"], found["chance_top1"]) == (1, 1.0, 1.0)
    assert "equal_error_rate" not in found
    page = report_on(tmp_path / "report", folder)
    assert "100.0 [100.0, 100.0], 1 patients" in page
    assert '<td data-of="equal error rate">–</td>' in page


def silence(model: Path) -> None:
    """Make every layer norm forget what comes in, so that each segment gives the same vector."""
    with safe_open(model, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in tensors.items():
        if name.endswith("layer_norm.weight"):
            tensor.zero_()
        if name.endswith("layer_norm.bias"):
            tensor.fill_(1.0)
    save_file(tensors, model, metadata)


def test_an_encoder_that_says_the_same_of_everyone_finds_nobody(tmp_path: Path) -> None:
    parts = ("train", "train", "gallery", "probe", "gallery", "probe")
    changes = {**CHANGES, "identify.freeze": "encoder"}
    folder = example_project(tmp_path / "same", changes, identify=parts, patients=tuple("abppqq"))
    silence(folder / "models/pretrained/model.safetensors")
    found = identified(folder)
    assert (found["patients"], found["top1"], found["chance_top1"]) == (2, 0.0, 0.5)
    assert found["equal_error_rate"] == 0.5
    assert "0.0 [0.0, 0.0], 2 patients" in report_on(tmp_path / "report", folder)
