"""What an experiment is called in MLflow, and which runs there are ours. Does not import mlflow.

An experiment is a name that DVC gave it, or a git commit, together with the values of params.yaml.
Run ids are remembered in the git-ignored state folder, so a resumed stage finds its run again, and
`make compare` leads from an experiment to its run.
"""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecg_core.dotted import flatten
from ecg_core.params import read_yaml
from ecg_core.tracking import project_root, state_folder

PARENT, PAGE = "parent", "page"
"""Among the ids by stage: the parent run's, and that of the page on which the runs stand."""

LOCAL_SERVER = "http://127.0.0.1:5000"
"""Where `make ui` serves a local store."""


@dataclass(frozen=True)
class Experiment:
    """What is run: the name that DVC or git gives it, its parameters, and tags that lead back."""

    name: str
    digest: str
    params: dict[str, Any]
    tags: dict[str, str]

    @property
    def state_file(self) -> Path:
        """Where its run ids are remembered; another store has other ids."""
        store = hashlib.sha256(tracking_uri().encode()).hexdigest()[:6]
        return state_folder() / f"{self.digest}-{store}-{self.name}.json"


def tracking_uri() -> str:
    """Return the store: MLFLOW_TRACKING_URI, or a sqlite file in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_root()}/mlflow.db"


def current_experiment() -> Experiment:
    """Return the experiment that this folder stands for now."""
    params = without_tracking(flatten(read_yaml()))
    digest = digest_of(params)
    commit = _git("rev-parse", "HEAD")
    tags = {
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.exp_baseline_rev": os.environ.get("DVC_EXP_BASELINE_REV", ""),
        "mlflow.source.git.commit": commit,
        "mlflow.source.name": str(project_root()),
        "git.dirty": str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower(),
        "params.digest": digest,
    }
    name = tags["dvc.exp_name"] or commit[:7] or "no-git"
    return Experiment(name, digest, params, {key: value for key, value in tags.items() if value})


def without_tracking(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that can change a result."""
    return {key: value for key, value in params.items() if not key.startswith("tracking.")}


def digest_of(params: Mapping[str, Any]) -> str:
    """Return the digest by which runs of the same parameters are found (tag params.digest)."""
    return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:8]


def run_address(name: str, params: Mapping[str, Any]) -> str | None:
    """Return where the MLflow pages show the parent run of an experiment, if it is known here."""
    known = without_tracking(params)
    ids = remembered(Experiment(name, digest_of(known), known, {}), any_commit=True)
    if PARENT not in ids or PAGE not in ids:
        return None
    server = tracking_uri() if tracking_uri().startswith("http") else LOCAL_SERVER
    return f"{server.rstrip('/')}/#/experiments/{ids[PAGE]}/runs/{ids[PARENT]}"


def remembered(experiment: Experiment, any_commit: bool) -> dict[str, str]:
    """Return the run ids by stage; `any_commit` takes the newest ones of the same parameters."""
    files = [experiment.state_file]
    if any_commit and not files[0].is_file():
        store = experiment.state_file.name.removesuffix(f"{experiment.name}.json")
        files = sorted(state_folder().glob(f"{store}*.json"), key=lambda file: file.stat().st_mtime)
    if not files or not files[-1].is_file():
        return {}
    ids: dict[str, str] = json.loads(files[-1].read_text())
    return ids


def remember(experiment: Experiment, ids: Mapping[str, str]) -> None:
    """Write the run ids by stage."""
    file = experiment.state_file
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".tmp")
    beside.write_text(json.dumps(ids))
    beside.replace(file)


def _git(*words: str) -> str:
    try:
        answer = subprocess.run(["git", *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()
