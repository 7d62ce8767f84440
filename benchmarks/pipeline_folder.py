"""Run the pipeline's own stages in a folder of its own, with changed parameters."""

import os
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent

PREPARED = ("segments", "manifest", "params-are-valid.txt", "checksums.txt")
"""What the training stages read under data/, the split aside."""


def lay_out(
    folder: Path,
    settings: dict[str, object],
    *,
    data: Path = ROOT / "data",
    shared: tuple[str, ...] = PREPARED,
) -> None:
    """Make a folder that shares code and prepared data; settings are params by dotted name."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name in shared:
        link = folder / "data" / name
        if not link.exists():
            link.symlink_to(data / name)
    for name in ("ecg_core", "stages", "dvc.yaml"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    for key, value in settings.items():
        section, name = key.split(".")
        params[section][name] = value
    yaml.dump(params, folder / "params.yaml")


def start_stage(
    folder: Path, stage: str, env: dict[str, str] | None = None
) -> "subprocess.Popen[str]":
    """Start a stage in such a folder, in a process group of its own; stderr is a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=folder,
        env={**os.environ, "DVC_ROOT": str(folder), "PYTHONPATH": str(folder), **(env or {})},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_stages(
    folder: Path,
    settings: dict[str, object],
    stages: list[str],
    *,
    data: Path = ROOT / "data",
    shared: tuple[str, ...] = PREPARED,
    env: dict[str, str] | None = None,
) -> None:
    """Run stages in a folder that shares prepared data; settings are params by dotted name."""
    lay_out(folder, settings, data=data, shared=shared)
    for stage in stages:
        print(f"{folder.name}: {stage}", flush=True)
        process = start_stage(folder, stage, env)
        said = process.communicate()[1]
        if process.returncode:
            sys.exit(f"{stage} failed in {folder}:\n{said[-2000:]}")
