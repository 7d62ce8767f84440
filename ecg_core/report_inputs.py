"""What the report is made of: the tables and metrics of the stages before it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ecg_core.dotted import flatten
from ecg_core.params import read_yaml
from ecg_core.refusal import Refusal

PUBLISHED_FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Inputs:
    """The parameters, the published numbers, and what each stage reports."""

    params: dict[str, Any]
    """Flattened: {"optimization.max_epoch": 55, ...}."""
    published: dict[str, Any]
    manifest: pd.DataFrame
    refused: pd.DataFrame
    split: dict[str, Any]
    pretrain: pd.DataFrame
    """Empty where the checkpoint was imported."""
    finetune: pd.DataFrame
    evaluate: dict[str, Any]
    per_class: pd.DataFrame
    leads: pd.DataFrame
    calibration: pd.DataFrame
    sources: pd.DataFrame
    identify: dict[str, Any]
    """Empty where the pipeline has no such stage."""
    identify_leads: pd.DataFrame


def read_inputs(root: Path) -> Inputs:
    """Read everything below a project's folder; raise Refusal naming the file that is missing."""
    reports, data = root / "reports", root / "data"
    identify = (reports / "identify" / "metrics.json").is_file()
    identify_leads = reports / "identify" / "leads.csv"
    return Inputs(
        params=flatten(read_yaml(root / "params.yaml")),
        published=read_yaml(PUBLISHED_FILE),
        manifest=_table(data / "manifest" / "manifest.csv"),
        refused=_table(data / "manifest" / "refused.csv"),
        split=_metrics(reports, "split"),
        pretrain=_table(reports / "pretrain" / "history.csv"),
        finetune=_table(reports / "finetune" / "history.csv"),
        evaluate=_metrics(reports, "evaluate"),
        per_class=_table(reports / "evaluate" / "per_class.csv"),
        leads=_table(reports / "evaluate" / "leads.csv"),
        calibration=_table(reports / "evaluate" / "calibration.csv"),
        sources=_table(reports / "evaluate" / "sources.csv"),
        identify=_metrics(reports, "identify") if identify else {},
        identify_leads=_table(identify_leads) if identify else pd.DataFrame(),
    )


def _metrics(reports: Path, stage: str) -> dict[str, Any]:
    path = reports / stage / "metrics.json"
    if not path.is_file():
        raise Refusal(f"{path}: expected the metrics of {stage}, found no such file")
    tree: dict[str, Any] = json.loads(path.read_text())
    return dict(tree[stage])


def _table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise Refusal(f"{path}: expected a table, found no such file")
    if not path.read_bytes().strip():
        return pd.DataFrame()
    # codes of one diagnosis look like numbers
    return pd.read_csv(path, dtype={"record_id": str, "patient": str, "codes": str})
