"""pretrained.path: a checkpoint of the public code instead of a training; all after it the same."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ecg_core.models.fairseq_checkpoint import import_finetuned
from ecg_core.models.model_file import read_model
from tests.replay.fixtures import OWN
from tests.small_project import run_stage, write_params
from tests.stages.example_data import example_project

CHECKPOINT = OWN / "tiny_pretrain_ckpt.pt"
CHANGES: dict[str, object] = {
    "pretrained.path": str(CHECKPOINT),
    "finetune.max_epoch": 1,
    "evaluate.bootstrap": 2,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = example_project(tmp_path_factory.mktemp("import") / "one", CHANGES)
    for stage in ("pretrain", "finetune", "evaluate"):
        done = run_stage(folder, stage)
        assert done.returncode == 0, done.stderr
    return folder


def test_the_stage_imports_the_checkpoint_instead_of_training(project: Path) -> None:
    stored = read_model(project / "models/pretrained/model.safetensors")
    expected = torch.load(CHECKPOINT, weights_only=True)["model"]
    assert set(stored.tensors) == set(expected)
    assert all(torch.equal(stored.tensors[name], expected[name]) for name in expected)
    assert json.loads((project / "reports/pretrain/metrics.json").read_text()) == {"pretrain": {}}
    assert (project / "reports/pretrain/history.csv").read_text().strip() == ""


def test_finetuning_begins_with_the_imported_encoder_and_is_evaluated(project: Path) -> None:
    model = read_model(project / "models/finetuned/model.safetensors")
    assert model.params["model"]["encoder_layers"] == 2
    name = "feature_extractor.conv_layers.0.0.weight"
    with np.load(OWN / "c3_classifier_state_dict.npz") as archive:
        # the convolutions are frozen, so they are still the original's
        assert np.array_equal(model.tensors[f"encoder.{name}"].numpy(), archive[f"encoder.{name}"])
    assert (project / "reports/evaluate/metrics.json").is_file()


def test_a_finetuned_model_of_the_original_is_evaluated_too(tmp_path: Path) -> None:
    folder = example_project(tmp_path / "one", CHANGES)
    config = json.loads((OWN / "tiny_finetune_cfg.json").read_text())
    with np.load(OWN / "c3_classifier_state_dict.npz") as archive:
        tensors = {name: torch.from_numpy(archive[name]) for name in archive}
    torch.save({"cfg": config, "model": tensors}, tmp_path / "finetuned.pt")
    import_finetuned(tmp_path / "finetuned.pt", folder / "models/finetuned/model.safetensors")
    done = run_stage(folder, "evaluate")
    assert done.returncode == 0, done.stderr


def test_a_bad_checkpoint_ends_the_stage_with_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pt"
    bad.write_bytes(CHECKPOINT.read_bytes()[:1000])
    folder = example_project(tmp_path / "one", CHANGES)
    (folder / "models/pretrained/model.safetensors").unlink()
    write_params(folder, {**CHANGES, "pretrained.path": str(bad)})
    done = run_stage(folder, "pretrain")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {bad}: expected a whole file of torch.save, found")
    assert "\n" not in done.stderr.strip()
    assert not (folder / "models/pretrained/model.safetensors").exists()
