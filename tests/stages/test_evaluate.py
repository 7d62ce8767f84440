"""The stage on a handful of segments with an untrained model: files, counts, same bytes twice."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecg_core.classes import CLASSES, SINUS_RHYTHM
from ecg_core.manifest import MANIFEST_COLUMNS, write_manifest
from ecg_core.metrics.cinc import cinc_score, load_weights
from ecg_core.models.classifier import Classifier, save_classifier
from ecg_core.models.encoder import Encoder, ModelParams
from ecg_core.params import read_section, read_yaml
from ecg_core.segments import create_segments
from ecg_core.splits import write_split
from stages import evaluate

PARAMS_FILE = Path(__file__).parents[2] / "params.yaml"
PARTS = ("train", "valid", "valid", "test", "test", "test")


def write_params(folder: Path) -> None:
    """The project's own parameters, smaller where it matters, and without MLflow."""
    text = PARAMS_FILE.read_text()
    text = text.replace("mlflow: true", "mlflow: false").replace("threads: 2", "threads: 1")
    text = text.replace("challenge_output: false", "challenge_output: true")
    for section in ("identify", "evaluate"):
        head, tail = text.split(f"\n{section}:", 1)
        tail = tail.replace("bootstrap: 1000", "bootstrap: 5", 1)
        text = f"{head}\n{section}:{tail}"
    (folder / "params.yaml").write_text(text)


def write_data(folder: Path) -> None:
    """Six recordings of two segments each, in three sources; the fourth has no scored label."""
    names = [f"R{number}" for number in range(len(PARTS))]
    sources = ["georgia", "ningbo", "georgia", "ptb-xl", "georgia", "georgia"]
    table = pd.DataFrame({"source": sources, "record_id": names})
    store = folder / "data/segments"
    writer = create_segments(store, table.assign(segments=2), fs=500, n_samples=400)
    generator = np.random.default_rng(0)
    for recording in range(len(table)):
        signal = generator.integers(-1000, 1000, (12, 800)).astype(np.int16)
        writer.write(recording, signal, np.full(12, 1000, dtype=np.float32))
    writer.close()
    classes = [SINUS_RHYTHM, CLASSES[0], SINUS_RHYTHM, "", CLASSES[0], SINUS_RHYTHM]
    manifest = table.assign(**{name: "" for name in MANIFEST_COLUMNS if name not in table})
    manifest = manifest.assign(classes=classes, fs=500.0, age=50.0, n_samples=800)
    write_manifest(folder / "data/manifest/manifest.csv", manifest)
    split = table.loc[np.repeat(np.arange(len(table)), 2)].assign(
        segment=[0, 1] * len(table),
        patient=np.repeat(["a", "b", "c", "d", "e", "e"], 2),
        pretrain=1,
        finetune=np.repeat(PARTS, 2),
        identify="",
    )
    write_split(folder / "data/split/split.csv", split)


def write_model(folder: Path) -> None:
    """An untrained classifier of the demo's shape."""
    encoder = Encoder(read_section("model", ModelParams, PARAMS_FILE))
    save_classifier(folder / "models/finetuned/model.safetensors", Classifier(encoder, 26, 0.0))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    write_params(folder)
    write_data(folder)
    write_model(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DVC_ROOT", str(folder))
        evaluate.main()
    return folder


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


def test_every_lead_set_and_source_has_its_row(project: Path) -> None:
    leads = pd.read_csv(project / "reports/evaluate/leads.csv")
    assert leads["leads"].to_list() == [n for n in (12, 6, 3, 2, 1) for _ in range(2)]
    assert leads["names"].iloc[4] == "I II V2"
    sources = pd.read_csv(project / "reports/evaluate/sources.csv")
    assert sources["source"].unique().tolist() == ["georgia", "ptb-xl"]
    assert len(list((project / "reports/evaluate/challenge").iterdir())) == 3


def test_a_second_run_writes_the_same_bytes(project: Path, tmp_path: Path) -> None:
    for name in ("params.yaml", "data", "models"):
        (tmp_path / name).symlink_to(project / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("DVC_ROOT", str(tmp_path))
        evaluate.main()
    for path in (project / "reports").rglob("*.*"):
        assert (tmp_path / path.relative_to(project)).read_bytes() == path.read_bytes()


def test_a_model_of_few_leads_is_given_no_other(project: Path, tmp_path: Path) -> None:
    for name in ("data", "models"):
        (tmp_path / name).symlink_to(project / name)
    shutil.copy(project / "params.yaml", tmp_path)
    text = (tmp_path / "params.yaml").read_text()
    head, tail = text.split("\nfinetune:", 1)
    tail = tail.replace("leads_to_load: null", "leads_to_load: [I, II]", 1)
    (tmp_path / "params.yaml").write_text(f"{head}\nfinetune:{tail}")
    assert read_yaml(tmp_path / "params.yaml")["finetune"]["leads_to_load"] == ["I", "II"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("DVC_ROOT", str(tmp_path))
        evaluate.main()
    leads = pd.read_csv(tmp_path / "reports/evaluate/leads.csv")
    assert leads["names"].iloc[::2].to_list() == ["I II"] * 4 + ["I"]
    few = pd.read_csv(project / "reports/evaluate/leads.csv")
    own = leads.query("leads == 12 and unit == 'segment'").iloc[0]
    same = few.query("leads == 2 and unit == 'segment'").iloc[0]
    assert own["auroc_micro"] == same["auroc_micro"]
