"""Runs in MLflow: one parent run an experiment, one child run a stage."""

import json
import os
from collections.abc import Mapping
from typing import Any

# before mlflow is imported: no telemetry, and a server that is down is given up at once
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow.entities import Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from ecg_core.mlflow_names import PAGE, PARENT, Experiment, tracking_uri
from ecg_core.tracking import project_root


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
        ids[PAGE] = page
        return ids[PARENT], False
    name = f"{experiment.name} ({experiment.digest})"
    run_id = str(client.create_run(page, tags=experiment.tags, run_name=name).info.run_id)
    log_params(client, run_id, experiment.params)
    ids.clear()  # the children of a parent that is gone
    ids |= {PARENT: run_id, PAGE: page}
    return run_id, True


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, Any]) -> None:
    """Log flattened parameters, at most 100 a call as the server demands."""
    rows = [Param(key, json.dumps(value).strip('"')) for key, value in params.items()]
    for start in range(0, len(rows), 100):
        client.log_batch(run_id, params=rows[start : start + 100])
