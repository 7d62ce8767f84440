"""The two commands for anybody's records, with untrained models."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import wfdb

from ecg_core.models.encoder import load_encoder
from ecg_core.records.any_record import read_any, segments_of
from stages import embed, predict
from stages.command import guarded
from tests.stages.example_data import example_project

NAMES = ["V1", "II", "I"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = example_project(tmp_path / "project", {})
    monkeypatch.chdir(folder)
    time = np.arange(2500) / 250
    signal = np.stack([np.sin(time * frequency) for frequency in (7, 8, 9)], axis=1)
    records = {"fs": 250, "units": ["mV"] * 3, "sig_name": NAMES, "fmt": ["212"] * 3}
    wfdb.wrsamp("mine", p_signal=signal, **records, write_dir=str(folder))
    wfdb.wrsamp("flat", p_signal=np.zeros((2500, 3)), **records, write_dir=str(folder))
    return folder


def call(
    main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> str | int | None:
    monkeypatch.setattr(sys, "argv", ["stage", *arguments])
    with pytest.raises(SystemExit) as leaving:
        guarded(main)
    return leaving.value.code


def test_predict_prints_a_table_and_draws_the_recording(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(predict.main, monkeypatch, "mine") == 0
    printed = capsys.readouterr().out
    assert "mine: leads I II V1; 2 segments" in printed
    assert "For research, not for diagnosis." in printed
    assert (project / "drawings/mine.png").read_bytes().startswith(b"\x89PNG")
    assert "not recorded" in (project / "drawings/mine.svg").read_text()


def test_predict_prints_json_and_refuses_what_it_cannot_read(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("flat", "nowhere", "mine.hea", "--json", "--draw", "elsewhere")
    code = call(predict.main, monkeypatch, *arguments)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["record"] for answer in answers] == ["mine"]
    assert len(answers[0]["classes"]) == 26
    assert "refused: flat: all-zero signal" in str(code)
    assert "refused: nowhere: unreadable header" in str(code)
    assert (project / "elsewhere/mine.svg").is_file()


def test_embed_writes_what_the_encoder_says_of_each_segment(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(embed.main, monkeypatch, "mine", "--out", "rows.csv") == 0
    table = pd.read_csv(project / "rows.csv")
    assert table[["record", "segment"]].to_numpy().tolist() == [["mine", 0], ["mine", 1]]
    segments = segments_of(read_any(project / "mine"), 500, 5.0, "polyphase")
    encoder = load_encoder(project / "models/pretrained/model.safetensors")
    expected = encoder(torch.from_numpy(segments)).detach().numpy()
    assert np.abs(table.iloc[:, 2:].to_numpy(dtype=float) - expected).max() < 1e-5
