"""A project folder with real code, tiny parameters and a handful of real or made-up recordings."""

import importlib
import multiprocessing
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from ecg_core.classes import CLASSES
from ecg_core.manifest import MANIFEST_COLUMNS, write_manifest
from ecg_core.segments import create_segments
from ecg_core.splits import write_split
from stages.command import guarded

ROOT = Path(__file__).resolve().parent.parent

TINY: dict[str, object] = {
    "common.threads": 1,
    "common.no_progress_bar": True,
    "dataset.batch_size": 4,
    "dataset.required_batch_size_multiple": 2,
    "optimization.max_epoch": 3,
    "model.conv_feature_layers": [[16, 2, 2]] * 4,
    "model.encoder_layers": 1,
    "model.encoder_embed_dim": 16,
    "model.encoder_ffn_embed_dim": 32,
    "model.encoder_attention_heads": 2,
    "model.conv_pos": 8,
    "model.conv_pos_groups": 2,
    "model.latent_vars": 8,
    "model.final_dim": 16,
    "model.num_negatives": 10,
    "finetune.max_epoch": 3,
    "finetune.batch_size": 8,
    "identify.max_epoch": 2,
    "evaluate.bootstrap": 20,
    "tracking.mlflow": False,
}


def write_params(folder: Path, changes: dict[str, object]) -> None:
    """Write the project's params.yaml with tiny settings and these changes."""
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    for key, value in {**TINY, **changes}.items():
        section, name = key.split(".")
        if name not in params[section]:
            raise KeyError(key)
        params[section][name] = value
    yaml.dump(params, folder / "params.yaml")


def make_project(folder: Path, changes: dict[str, object], n_recordings: int = 20) -> Path:
    """Lay out a project whose data stages are done, on made-up recordings of two segments."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("ecg_core", "stages", "dvc.yaml"):
        (folder / name).symlink_to(ROOT / name)
    write_params(folder, changes)
    rng = np.random.default_rng(0)
    records = pd.DataFrame(
        {"source": "georgia", "record_id": [f"E{i:05d}" for i in range(n_recordings)]}
    )
    writer = create_segments(
        folder / "data/segments", records.assign(segments=2), fs=500, n_samples=2500
    )
    beats = (200 * np.sin(np.arange(5000) / np.linspace(20, 60, n_recordings)[:, None])).round()
    for row in range(n_recordings):
        signal = (beats[row] + rng.normal(0, 30, (12, 5000))).astype(np.int16)
        writer.write(row, signal, np.full(12, 1000, np.float32))
    writer.close()
    manifest = pd.DataFrame(dict.fromkeys(MANIFEST_COLUMNS, ""), index=records.index)
    manifest = manifest.assign(**records, classes=[CLASSES[i % 3] for i in range(n_recordings)])
    manifest = manifest.assign(fs=500.0, n_samples=5000, age=np.nan, ecg_id=None, fold=None)
    manifest["patient"] = manifest["record_id"]
    write_manifest(folder / "data/manifest/manifest.csv", manifest)
    split = records.loc[records.index.repeat(2)].assign(segment=[0, 1] * n_recordings)
    part = np.where(np.arange(n_recordings) < 12, "train", "valid").astype(object)
    part[16:] = "test"
    split = split.assign(
        patient=split["record_id"], finetune=np.repeat(part, 2), identify="", pretrain=0
    )
    split["pretrain"] = (split["finetune"] == "train").astype(int)
    write_split(folder / "data/split/split.csv", split)
    return folder


class StageProcess:
    """A stage in a forked process: it need not import torch again, and can be killed."""

    def __init__(
        self, folder: Path, stage: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.messages = folder / f"{stage}.stderr"
        module = importlib.import_module(f"stages.{stage}")
        self.process = multiprocessing.get_context("fork").Process(
            target=_run_main, args=(folder, module.main, self.messages, environment or {})
        )
        self.process.start()

    @property
    def returncode(self) -> int | None:
        """Return the exit code as a shell has it, None while the stage runs."""
        return self.process.exitcode

    def end(self) -> "StageProcess":
        """Wait for the end."""
        self.process.join()
        return self

    def send_signal(self, number: int) -> None:
        """Send a signal to the stage."""
        os.kill(self.process.pid or 0, number)

    @property
    def stderr(self) -> str:
        """Return what the stage has said so far."""
        return self.messages.read_text()


def _run_main(
    folder: Path, main: Callable[[], None], messages: Path, environment: Mapping[str, str]
) -> None:
    """Do what `python -m stages.NAME` does, in a folder, with its messages in a file."""
    os.chdir(folder)
    os.environ.update(environment)
    os.environ["DVC_ROOT"] = str(folder)
    with messages.open("w") as file:
        sys.stderr = file
        try:
            guarded(main)
        except Exception:  # noqa: BLE001 as the interpreter does at its end
            traceback.print_exc()
            raise SystemExit(1) from None
        except SystemExit as leaving:
            if isinstance(leaving.code, str):
                file.write(leaving.code)
            raise


def run_stage(folder: Path, stage: str) -> StageProcess:
    """Run a stage to its end, whatever it is."""
    return StageProcess(folder, stage).end()


def copy_project(source: Path, target: Path) -> Path:
    """Copy a project without its states and results."""
    shutil.copytree(
        source, target, symlinks=True, ignore=shutil.ignore_patterns(".state", "models", "reports")
    )
    return target
