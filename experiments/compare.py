"""Experiments side by side: one page with their curves overlaid, their scores, what differs.

Reads the workspace, and from git HEAD and DVC's experiments (metrics and histories are in their
commits), so nothing is checked out or run. `make compare` writes .state/compare/index.html, and SVG
and PDF.
"""

import io
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from ecg_core.dotted import flatten
from ecg_core.figures import figure_bytes, overlaid
from ecg_core.mlflow_names import run_address
from ecg_core.outputs import write_bytes, write_text
from ecg_core.params import PARAMS_FILE
from ecg_core.refusal import Refusal
from ecg_core.report_page import Block, Chapter, Page, Picture, Table, Text, to_html
from ecg_core.report_tables import NONE, NOTHING, number, show, with_interval

TARGET = Path(".state/compare")
WORKSPACE, COMMITTED = "workspace", "HEAD"
SCORES = {
    "cinc_fixed": "CinC 2021 at 0.5",
    "cinc_class_tuned": "CinC 2021, tuned thresholds",
    "auroc_macro": "AUROC, macro",
    "auroc_micro": "AUROC, micro",
    "auprc_macro": "AUPRC, macro",
}
CURVES = (
    ("pretrain", "loss", "Pretraining loss, all four terms", "bits a target"),
    ("pretrain", "accuracy", "InfoNCE accuracy", "fraction"),
    ("finetune", "test_loss_per_positive", "Finetuning, test loss", "bits a positive label"),
    ("finetune", "test_cinc_recording", "CinC 2021 on test, by recording", "score at 0.5"),
)


@dataclass(frozen=True)
class Experiment:
    """One experiment's parameters and reports; what it does not have is empty."""

    name: str
    params: dict[str, Any]
    evaluate: dict[str, Any]
    histories: dict[str, pd.DataFrame]

    @property
    def has_results(self) -> bool:
        """Whether anything was trained or scored."""
        return bool(self.evaluate or self.histories)


def experiments_in_git() -> dict[str, str]:
    """Return the commits of DVC's experiments by name, the oldest first."""
    listed = _git("for-each-ref", "--sort=creatordate", "--format=%(refname)", "refs/exps") or ""
    refs = [line for line in listed.split() if re.match(r"refs/exps/[0-9a-f]{2}/", line)]
    return {ref.rsplit("/", 1)[1]: ref for ref in refs}


def read_experiment(name: str, read: Callable[[str], str | None]) -> Experiment:
    """Return an experiment whose files a function reads by their path in the project."""
    params = YAML(typ="safe", pure=True).load(read(PARAMS_FILE.name) or "{}")
    evaluate = json.loads(read("reports/evaluate/metrics.json") or '{"evaluate": {}}')["evaluate"]
    texts = {stage: read(f"reports/{stage}/history.csv") for stage in ("pretrain", "finetune")}
    tables = {stage: pd.read_csv(io.StringIO(t)) for stage, t in texts.items() if t and t.strip()}
    return Experiment(name, flatten(params), evaluate, tables)


def all_experiments(names: Sequence[str]) -> list[Experiment]:
    """Return the experiments of these names, or all that have results, each once.

    The names are DVC's, HEAD for what is committed, and workspace, which is left out where it is
    one of the others (after `dvc exp run` or `dvc exp apply`).
    """
    refs = experiments_in_git()
    unknown = [name for name in names if name not in (*refs, WORKSPACE, COMMITTED)]
    if unknown:
        raise Refusal(f"no experiment {', '.join(unknown)}; there are {', '.join(refs) or 'none'}")
    if names:
        return [_read(name, refs) for name in names]
    found: list[Experiment] = []
    for experiment in (_read(name, refs) for name in (COMMITTED, *refs, WORKSPACE)):
        same = [(one.params, one.evaluate) for one in found]
        if experiment.has_results and (experiment.params, experiment.evaluate) not in same:
            found.append(experiment)
    return found


def _read(name: str, refs: dict[str, str]) -> Experiment:
    def from_disk(path: str) -> str | None:
        return Path(path).read_text() if Path(path).is_file() else None

    def from_git(path: str) -> str | None:
        return _git("show", f"{refs.get(name, name)}:{path}")

    return read_experiment(name, from_disk if name == WORKSPACE else from_git)


def mean_and_spread(names: Sequence[str]) -> str:
    """Return mean ± sample standard deviation over experiments, one line a score."""
    refs = experiments_in_git()
    found = [_read(name, refs).evaluate for name in names if name in refs]
    lines = [f"{len(found)} of {len(names)} runs finished; mean ± sd on test, by recording:"]
    for key, words in SCORES.items():
        values = [run["recording"][key] for run in found if run]
        values = [value for value in values if value is not None]
        lines.append(f"  {words:<28} {_mean(values)}")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> str:
    if not values:
        return NONE
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread} (n = {len(values)})"


def score_table(experiments: Sequence[Experiment]) -> Table:
    """Return test scores by recording with their 95 % intervals, one row an experiment."""
    rows = []
    for experiment in experiments:
        found = experiment.evaluate
        cells = [with_interval(found, "recording", key) if found else NONE for key in SCORES]
        trivial = number(found["recording"][NOTHING]) if found else NONE
        count = str(found["recordings"]) if found else NONE
        rows.append((experiment.name, *cells, count, trivial))
    columns = ("experiment", *SCORES.values(), "test recordings", "nothing predicted scores")
    return Table(columns, tuple(rows))


def seed_table(experiments: Sequence[Experiment]) -> Table:
    """Return mean ± sd over the seeds of each sweep."""
    sweeps: dict[str, list[dict[str, Any]]] = {}
    for experiment in experiments:
        base = re.fullmatch(r"(.+)-seed\d+", experiment.name)
        if base and experiment.evaluate:
            sweeps.setdefault(base[1], []).append(experiment.evaluate["recording"])
    rows = [
        (name, *(_mean([run[key] for run in runs if run[key] is not None]) for key in SCORES))
        for name, runs in sweeps.items()
    ]
    return Table(("sweep over seeds", *SCORES.values()), tuple(rows))


def parameter_table(experiments: Sequence[Experiment]) -> Table:
    """Return the parameters that are not the same in all experiments."""
    keys = dict.fromkeys(key for experiment in experiments for key in experiment.params)
    rows = []
    for key in keys:
        values = [show(experiment.params.get(key)) for experiment in experiments]
        if len(set(values)) > 1:
            rows.append((key, *values))
    return Table(("parameter", *(experiment.name for experiment in experiments)), tuple(rows))


def place_table(experiments: Sequence[Experiment]) -> Table:
    """Return each experiment's git commit and MLflow run, as far as this clone knows them."""
    refs = experiments_in_git()
    rows = []
    for experiment in experiments:
        name, in_git = experiment.name, experiment.name != WORKSPACE
        commit = _git("rev-parse", "--short", refs.get(name, COMMITTED)) or NONE
        base = commit.strip() if in_git else f"{commit.strip()} and what `git diff` shows"
        rows.append((name, base, run_address(name, experiment.params) or NONE))
    return Table(("experiment", "git commit", "MLflow run (make ui serves it)"), tuple(rows))


def curves(experiments: Sequence[Experiment]) -> list[Picture]:
    """Draw each curve of all experiments in one figure, and write it for print too."""
    pictures = []
    for stage, column, title, unit in CURVES:
        having = {e.name: e.histories[stage] for e in experiments if stage in e.histories}
        if not having:
            continue
        figure = overlaid(having, column, title, unit)
        files = {kind: figure_bytes(figure, kind) for kind in ("svg", "pdf")}
        for kind, content in files.items():
            write_bytes(TARGET / f"{stage}_{column}.{kind}", content)
        pictures.append(Picture(f"{stage}_{column}", title, files["svg"].decode()))
    return pictures


def build(experiments: Sequence[Experiment]) -> Page:
    """Return the page."""
    sweeps = seed_table(experiments)
    scores: list[Block] = [score_table(experiments), *([sweeps] if sweeps.rows else [])]
    chapters = (
        Chapter("Scores on test, by recording, with 95 % intervals", tuple(scores)),
        Chapter("Curves", tuple(curves(experiments)) or (Text("No history yet."),)),
        Chapter("Parameters that differ", (parameter_table(experiments),)),
        Chapter("Commits and MLflow runs", (place_table(experiments),)),
    )
    warning = (
        "Experiments of this project beside one another. Scores compare only where data, split "
        "and test recordings are the same; intervals are over patients, not over seeds."
    )
    return Page("Experiments side by side", warning, chapters)


def _git(*words: str) -> str | None:
    answer = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    return answer.stdout if answer.returncode == 0 else None


def main(names: Sequence[str]) -> None:
    """Write the page and say where."""
    experiments = all_experiments(names)
    if not experiments:
        raise Refusal("no experiment has results yet: `make repro`, or `make exp NAME=...`")
    write_text(TARGET / "index.html", to_html(build(experiments)))
    print(f"{(TARGET / 'index.html').absolute().as_uri()}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refusal as refusal:
        sys.exit(f"error: {refusal}")
