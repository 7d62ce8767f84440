"""The logged model answers as the checkpoint does, loaded where nothing of the project is."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ecg_core import tracking
from ecg_core.mlflow_model import model_card
from ecg_core.models.classifier import Classifier, save_classifier
from ecg_core.models.encoder import Encoder, ModelParams
from ecg_core.params import read_section
from ecg_core.report_inputs import read_inputs
from tests.report_example import write_project

ROOT = Path(__file__).parents[1]
LOAD = """\
import sys, numpy as np, mlflow
uri, run, signal, answer = sys.argv[1:]
mlflow.set_tracking_uri(uri)
chosen = {"experiment_ids": ["1"], "filter_string": f"source_run_id='{run}'"}
(found,) = mlflow.search_logged_models(**chosen, output_format="list")
model = mlflow.pyfunc.load_model(found.model_uri)
print(model.metadata.signature)
np.save(answer, model.predict(np.load(signal)))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    write_project(root)
    shutil.copy(ROOT / "requirements.txt", root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return root


def test_pyfunc_predicts_from_millivolts_as_the_checkpoint_does(project: Path) -> None:
    torch.manual_seed(0)
    params = read_section("model", ModelParams, ROOT / "params.yaml")
    classifier = Classifier(Encoder(params), 26, final_dropout=0.0).eval()
    checkpoint = project / "model.safetensors"
    save_classifier(checkpoint, classifier)
    with tracking.run("report") as run:
        run.log_model(checkpoint)
    with sqlite3.connect(project / "mlflow.db") as store:
        parent = store.execute("select run_uuid from runs where name != 'report'").fetchone()[0]
        notes = store.execute("select value from tags where key = 'mlflow.note.content'").fetchall()
    store.close()
    assert notes == [(model_card(read_inputs(project)),)]
    elsewhere = project.parent / "elsewhere"
    elsewhere.mkdir()
    signal_mv = np.random.default_rng(0).normal(0, 0.3, (3, 12, 2500)).astype(np.float32)
    np.save(elsewhere / "signal.npy", signal_mv)
    uri = f"sqlite:///{project}/mlflow.db"
    words = [uri, parent, str(elsewhere / "signal.npy"), str(elsewhere / "answer.npy")]
    clean = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    said = subprocess.run(
        [sys.executable, "-c", LOAD, *words],
        cwd=elsewhere, env=clean, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "Tensor('float32', (-1, 12, -1))" in said
    with torch.no_grad():
        expected = torch.sigmoid(classifier(torch.from_numpy(signal_mv))).numpy()
    np.testing.assert_allclose(np.load(elsewhere / "answer.npy"), expected, atol=1e-6)


def test_the_model_card_says_what_it_is_worth_and_what_it_is_not_for(project: Path) -> None:
    card = model_card(read_inputs(project))
    for words in (
        "(demo scale)",
        "not for diagnosis",
        "CinC 2021 on 24 test recordings at threshold 0.5:\n  0.123 [0.023, 0.223]",
        "nothing predicted\n  scores -1.105",
        "split by patient",
        "CC BY 4.0",
    ):
        assert words in card
