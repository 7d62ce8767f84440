"""The numbers of the original, replayed; and what tests/parity.py does with other numbers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.parity import find_fixtures, main, replay_all
from tests.replay.comparison import Comparison, Row
from tests.replay.fixtures import OWN
from tests.replay.trajectories import PARAMS_FILE
from tests.replay_oracle import write_finetuning, write_pretraining

STEMS = [stem for stem, _ in find_fixtures(OWN)]


def copied(tmp_path: Path, stem: str) -> Path:
    """Return a folder that holds one fixture alone."""
    for path in OWN.glob(f"{stem}.*"):
        shutil.copy(path, tmp_path)
    return tmp_path


def change_json(path: Path, change: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def out(tables: list[Comparison]) -> list[Row]:
    return [row for table in tables for row in table.rows if not row.ok]


@pytest.mark.parametrize("stem", STEMS)
def test_this_project_computes_the_numbers_of_the_original(stem: str, tmp_path: Path) -> None:
    [table] = replay_all(copied(tmp_path, stem))
    assert out([table]) == []
    assert table.not_compared == []


def test_every_kind_of_fixture_is_among_them() -> None:
    kinds = {"_".join(stem.split("_")[:2]) for stem in STEMS}
    assert kinds >= {"c1_forward", "c2_eval", "c2_train", "c3_classifier", "c4_pretrain"}
    assert kinds >= {"c4_finetune", "c5_cinc", "c7_preprocess"}


def test_the_copy_of_the_fixtures_is_small() -> None:
    assert sum(path.stat().st_size for path in OWN.iterdir()) <= 6_000_000


@pytest.mark.parametrize(
    ("stem", "array"),
    [
        ("c1_forward_nopad", "conv_pos_BTC"),
        ("c2_eval", "grad/feature_extractor.conv_layers.0.0.weight"),
        ("c2_eval", "grad/encoder.layers.1.fc1.weight"),
        ("c3_classifier", "leads3/logits"),
        ("c4_pretrain_P3_gumbel_default_lr", "params_after_1/quantizer.vars"),
        ("c7_preprocess", "ptb-xl/HR06000_0/feats"),
    ],
)
def test_another_number_is_out(stem: str, array: str, tmp_path: Path) -> None:
    folder = copied(tmp_path, stem)
    with np.load(OWN / f"{stem}.npz") as archive:
        arrays = {name: archive[name] for name in archive}
    arrays[array] = arrays[array] * 1.001
    np.savez(folder / f"{stem}.npz", **arrays)
    rows = out(replay_all(folder))
    assert len(rows) == 1
    assert array in rows[0].quantity


@pytest.mark.parametrize(
    ("stem", "settings"),
    [
        ("c2_eval", {"feature_grad_mult": 1.0}),
        ("c2_eval", {"criterion": {"loss_weights": [0.2, 10.0]}}),
        ("c2_train_gumbel", {"temp": 1.0}),
        ("c4_pretrain_P3_gumbel_default_lr", {"clip_norm": 1.0}),
        ("c4_pretrain_P3_gumbel_default_lr", {"update_freq": 1}),
        ("c4_pretrain_P3_gumbel_default_lr", {"latent_temp": 1.5}),
        ("c4_pretrain_P3_gumbel_default_lr", {"latent_temp": [2.0, 0.5, 0.9]}),
        ("c4_pretrain_P3_gumbel_default_lr", {"train_gumbel": False}),
        ("c4_finetune_F1_config", {"model": {"feature_grad_mult": 0.1}}),
        ("c4_finetune_F1_config", {"model": {"freeze_finetune_updates": 1}}),
    ],
)
def test_settings_of_a_fixture_are_honoured(
    stem: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = copied(tmp_path, stem)
    change_json(folder / f"{stem}.json", settings)
    assert out(replay_all(folder)) != []


@pytest.mark.parametrize("key", ["lr_scheduler", "optimizer"])
def test_schedule_and_optimizer_of_a_fixture_are_honoured(key: str, tmp_path: Path) -> None:
    stem = "c4_pretrain_P3_gumbel_default_lr"
    folder = copied(tmp_path, stem)
    told = json.loads((OWN / f"{stem}.json").read_text())
    told[key] |= {"warmup_updates": 4} if key == "lr_scheduler" else {"adam_eps": 1e-2}
    change_json(folder / f"{stem}.json", told)
    assert out(replay_all(folder)) != []


def test_warm_up_clipping_and_a_falling_temperature_follow_the_formulas(tmp_path: Path) -> None:
    write_pretraining(tmp_path / "c4_pretrain_warm")
    assert out(replay_all(tmp_path)) == []


def test_three_stages_and_a_resting_encoder_follow_the_formulas(tmp_path: Path) -> None:
    write_finetuning(tmp_path / "c4_finetune_rest")
    assert out(replay_all(tmp_path)) == []


def test_what_cannot_be_replayed_is_one_failed_row_and_the_rest_goes_on(tmp_path: Path) -> None:
    copied(tmp_path, "c5_cinc")
    (tmp_path / "c2_alone.json").write_text("{}")
    (tmp_path / "c4_pretrain_broken.json").write_text("{")
    np.savez(tmp_path / "c4_pretrain_broken.npz", a=np.zeros(1))
    np.savez(tmp_path / "c1_forward_unknown.npz", final_BTC=np.zeros((1, 156, 64)))
    found = {table.fixture: out([table]) for table in replay_all(tmp_path)}
    assert found.pop("c5_cinc") == []
    assert {name: len(rows) for name, rows in found.items()} == {
        "c1_forward_unknown": 1,
        "c2_alone": 1,
        "c4_pretrain_broken": 1,
    }
    assert "c2_alone.npz" in found["c2_alone"][0].tolerance


def test_the_command_works_from_anywhere_and_exits_with_0_where_all_is_within(
    tmp_path: Path,
) -> None:
    command = [sys.executable, str(PARAMS_FILE.parent / "tests" / "parity.py"), "."]
    folder = copied(tmp_path, "c5_cinc")
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0
    assert "c5_cinc" in done.stdout
    assert "all within tolerance" in done.stdout


def test_numbers_that_are_out_exit_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c2_alone.json").write_text("{}")
    monkeypatch.setattr("sys.argv", ["parity.py", str(tmp_path)])
    assert main() == 1
    assert "1 out of tolerance" in capsys.readouterr().out


def test_an_empty_folder_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["parity.py", str(tmp_path)])
    assert main() == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: expected fixtures")
