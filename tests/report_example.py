"""A small finished project: the tables that the report is made of, with invented numbers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from ecg_core.classes import ABBREVIATIONS, CLASSES

ROOT = Path(__file__).parents[1]
NOTHING = -1.105
UNITS = ("recording", "segment")
SCORES = {
    "cinc_fixed": 0.1234,
    "cinc_one_tuned": 0.15,
    "cinc_class_tuned": 0.2,
    "auroc_macro": 0.71,
    "auroc_micro": 0.83,
    "auprc_macro": 0.31,
    "auprc_micro": 0.42,
    "f_macro": 0.2,
    "f_micro": 0.35,
    "exact_match": 0.125,
    "calibration_error": 0.03,
}
LOSSES = {"loss_per_label": 0.25, "loss_per_positive": 4.5}


def write_project(root: Path) -> None:
    """Write params.yaml and every table of the stages before report into a folder."""
    shutil.copy(ROOT / "params.yaml", root)
    _write(root / "data/manifest/manifest.csv", manifest())
    _write(root / "data/manifest/refused.csv", refused())
    parts = {"finetune_test": {"segments": 60, "recordings": 24, "patients": 24}}
    leaks = {"test": {"pretrain": {"signal": 0, "recording": 0, "patient": 2}}}
    shared = {"pretrain": 0, "identify_train": 1}
    split = {"parts": parts, "leaks": leaks, "identify_patients_shared": shared}
    _write_metrics(root, "split", split)
    _write(root / "reports/pretrain/history.csv", pretrain_history(55))
    _write(root / "reports/finetune/history.csv", finetune_history(25))
    _write_metrics(root, "evaluate", evaluate_metrics())
    for name, table in evaluate_tables().items():
        _write(root / "reports/evaluate" / f"{name}.csv", table)


def manifest() -> pd.DataFrame:
    sources = ["cpsc_2018"] * 40 + ["georgia"] * 20
    return pd.DataFrame({"source": sources, "record_id": [f"R{n:05}" for n in range(60)]})


def refused() -> pd.DataFrame:
    return pd.DataFrame({"source": ["ptb"], "record_id": ["S0001"], "reason": ["other rate"]})


def pretrain_history(epochs: int) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    falling = np.exp(-epoch / 30)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "updates": 5 * epoch,
            "lr": 1e-3,
            "loss": 6 + 4 * falling,
            "loss_infonce": 5 + 2 * falling,
            "loss_diversity": 0.1 * falling,
            "loss_penalty": 0.2 * falling,
            "loss_cmsc": 1 + falling,
            "accuracy": 0.08 - 0.05 * falling,
            "prob_perplexity": 130 - 40 * falling,
            "code_perplexity": 120 - 50 * falling,
            "temp": 2 * 0.999995 ** (5 * epoch),
            "gnorm": 1 + falling,
            "masked_frames": 60.0,
            "segments": 248,
        }
    )


def finetune_history(epochs: int) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    falling = np.exp(-epoch / 8)
    table = pd.DataFrame({"epoch": epoch, "updates": 9 * epoch, "lr": 5e-4, "gnorm": 0.5})
    for part, offset in (("train", 0.0), ("valid", 0.05), ("test", 0.06)):
        table[f"{part}_loss"] = 0.15 + offset + falling
        table[f"{part}_loss_per_positive"] = 3 + 20 * (offset + falling)
        table[f"{part}_cinc_segment"] = 0.3 - falling - offset
        if part != "train":
            table[f"{part}_cinc_recording"] = 0.32 - falling - offset
            table[f"{part}_auroc_micro"] = 0.9 - 0.3 * falling
            table[f"{part}_auroc_macro"] = 0.8 - 0.3 * falling
    return table


def evaluate_metrics() -> dict[str, object]:
    scores = {"recording": SCORES, "segment": SCORES | LOSSES}
    trivial = {"cinc_of_nothing_predicted": NOTHING, "cinc_of_sinus_for_everyone": 0.0}
    return {
        "recordings": 24,
        "segments": 60,
        "patients": 24,
        "recordings_without_scored_label": 3,
        "valid_recordings": 22,
        "classes_absent": "LPR QAb",
        "classes_absent_from_valid": "PR",
        **{unit: values | trivial for unit, values in scores.items()},
        "interval": {
            unit: {name: {"low": v - 0.1, "high": v + 0.1} for name, v in scores[unit].items()}
            for unit in UNITS
        },
    }


def evaluate_tables() -> dict[str, pd.DataFrame]:
    positives = np.arange(26) % 5
    classes = pd.DataFrame({"class": CLASSES, "abbreviation": ABBREVIATIONS})
    classes = classes.assign(
        positives=positives,
        auroc=np.where(positives > 0, 0.6 + 0.01 * np.arange(26), np.nan),
        f_measure=0.02 * np.arange(26),
    )
    leads = pd.DataFrame({"leads": [12, 6, 3, 2, 1], "names": "I", "cinc_fixed": 0.1})
    edges = np.arange(10) / 10
    curve = pd.DataFrame({"low": edges, "high": edges + 0.1, "entries": 10})
    curve = curve.assign(mean_probability=edges + 0.05, frequency=edges)
    sources = pd.DataFrame({"source": ["cpsc_2018", "georgia"], "recordings": [14, 10]})
    sources = sources.assign(cinc_fixed=0.1, auroc_macro=0.7)
    for table in (leads, sources):
        table["cinc_fixed_low"], table["cinc_fixed_high"] = 0.0, 0.2
    whole = {"per_class": classes, "leads": leads, "calibration": curve, "sources": sources}
    return {
        name: pd.concat([table.assign(unit=unit) for unit in UNITS])
        for name, table in whole.items()
    }


def write_identification(root: Path) -> None:
    """Write what identify reports, which not every pipeline has."""
    names = ("top1", "top5", "equal_error_rate")
    found = {key: v for n in names for key, v in ((n, 0.25), (f"{n}_low", 0.1), (f"{n}_high", 0.4))}
    chance = {"chance_top1": 1 / 17, "chance_top5": 5 / 17}
    _write_metrics(root, "identify", {"patients": 17.0, **found, **chance})
    leads = [{"leads": leads, "names": "I", "patients": 17, **found} for leads in (12, 1)]
    _write(root / "reports/identify/leads.csv", pd.DataFrame(leads))


def _write(path: Path, table: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


def _write_metrics(root: Path, stage: str, values: dict[str, object]) -> None:
    path = root / "reports" / stage / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({stage: values}))
