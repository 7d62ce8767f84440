"""Six short recordings with labels and a split, as the stages before leave them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ecg_core.classes import CLASSES, SINUS_RHYTHM
from ecg_core.manifest import MANIFEST_COLUMNS, write_manifest
from ecg_core.models.classifier import Classifier, save_classifier
from ecg_core.models.encoder import Encoder, ModelParams
from ecg_core.models.wav2vec2_cmsc import build_pretraining, save_pretraining
from ecg_core.params import read_section
from ecg_core.segments import create_segments
from ecg_core.splits import write_split
from tests.models.tiny import common
from tests.small_project import ROOT, write_params

SOURCES = ("georgia", "ningbo", "georgia", "ptb-xl", "georgia", "georgia")
PATIENTS = ("a", "b", "c", "d", "e", "e")
LABELS = (SINUS_RHYTHM, CLASSES[0], SINUS_RHYTHM, "", CLASSES[0], SINUS_RHYTHM)
FINETUNE = ("train", "valid", "valid", "test", "test", "test")
N_SAMPLES = 400


def example_project(
    folder: Path,
    changes: dict[str, object],
    identify: Sequence[str] = ("",) * 6,
    patients: Sequence[str] = PATIENTS,
) -> Path:
    """Lay out a project with data, an untrained pretrained model and an untrained classifier."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("ecg_core", "stages", "dvc.yaml"):
        (folder / name).symlink_to(ROOT / name)
    write_params(folder, changes)
    table = pd.DataFrame({"source": SOURCES, "record_id": [f"R{n}" for n in range(6)]})
    recordings = table.assign(segments=2)
    writer = create_segments(folder / "data/segments", recordings, fs=500, n_samples=N_SAMPLES)
    generator = np.random.default_rng(0)
    for recording in range(6):
        signal = generator.integers(-1000, 1000, (12, 2 * N_SAMPLES)).astype(np.int16)
        writer.write(recording, signal, np.full(12, 1000, dtype=np.float32))
    writer.close()
    manifest = table.assign(**{name: "" for name in MANIFEST_COLUMNS if name not in table})
    manifest = manifest.assign(classes=LABELS, fs=500.0, age=50.0, n_samples=2 * N_SAMPLES)
    write_manifest(folder / "data/manifest/manifest.csv", manifest)
    columns = {"patient": patients, "pretrain": 1, "finetune": FINETUNE, "identify": identify}
    split = table.assign(**columns).loc[np.repeat(np.arange(6), 2)].assign(segment=[0, 1] * 6)
    write_split(folder / "data/split/split.csv", split)
    params = read_section("model", ModelParams, folder / "params.yaml")
    save_pretraining(
        folder / "models/pretrained/model.safetensors", build_pretraining(params, common(1))
    )
    classifier = Classifier(Encoder(params), 26, 0.0)
    save_classifier(folder / "models/finetuned/model.safetensors", classifier)
    return folder
