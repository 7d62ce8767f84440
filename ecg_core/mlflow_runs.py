"""Which MLflow run belongs to what: one parent run an experiment, one child run a stage.

An experiment is a name that DVC gave it, or a git commit, together with the values of params.yaml.
Run ids are remembered in the git-ignored state folder, so a resumed stage finds its run again.
"""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# before mlflow is imported: no telemetry, and a server that is down is given up at once
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow.entities import Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from ecg_core.dotted import flatten
from ecg_core.params import read_yaml
from ecg_core.tracking import project_root, state_folder

PARENT = "parent"


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


def open_store(experiment: str) -> tuple[MlflowClient, str]:
    """Return a client and the id of the experiment's page, which is made at the first use."""
    client = MlflowClient(tracking_uri=tracking_uri())
    found = client.get_experiment_by_name(experiment)
    if found is not None:
        return client, str(found.experiment_id)
    # the default location is relative to the current folder, which DVC throws away under --temp
    local = not os.environ.get("MLFLOW_TRACKING_URI")
    location = str(project_root() / "mlartifacts") if local else None
    kind = {"mlflow.experimentKind": "custom_model_development"}  # how its pages are laid out
    return client, str(client.create_experiment(experiment, location, kind))


def current_experiment() -> Experiment:
    """Return the experiment that this folder stands for now."""
    params = flatten({name: part for name, part in read_yaml().items() if name != "tracking"})
    digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:8]
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


def live_run(client: MlflowClient, run_id: str | None) -> Any:
    """Return the run with this id, or None where the store has none (any more)."""
    if run_id is None:
        return None
    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return found if found.info.lifecycle_stage == "active" else None


def parent_run(
    client: MlflowClient, page: str, experiment: Experiment, ids: dict[str, str]
) -> tuple[str, bool]:
    """Return the id of the experiment's parent run, and whether it is new."""
    if live_run(client, ids.get(PARENT)) is not None:
        return ids[PARENT], False
    name = f"{experiment.name} ({experiment.digest})"
    run_id = str(client.create_run(page, tags=experiment.tags, run_name=name).info.run_id)
    log_params(client, run_id, experiment.params)
    ids.clear()  # the children of a parent that is gone
    ids[PARENT] = run_id
    return run_id, True


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, Any]) -> None:
    """Log flattened parameters, at most 100 a call as the server demands."""
    rows = [Param(key, json.dumps(value).strip('"')) for key, value in params.items()]
    for start in range(0, len(rows), 100):
        client.log_batch(run_id, params=rows[start : start + 100])


def _git(*words: str) -> str:
    try:
        answer = subprocess.run(["git", *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()
