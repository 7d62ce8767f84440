"""The report page with what no DVC output may hold: the machine, the versions, the commit.

`make page` writes .state/report/index.html; reports/index.html is the same without that chapter.
`make figure` draws README.md's figure of the demo's result from the committed metrics.
"""

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from ecg_core.evaluation_figures import six_scores
from ecg_core.figures import figure_bytes
from ecg_core.outputs import write_bytes, write_text
from ecg_core.refusal import Refusal
from ecg_core.report_content import EVALUATION, build_page
from ecg_core.report_inputs import read_inputs
from ecg_core.report_page import Chapter, Table, to_html

PROCESSOR = Path(__file__).parents[1] / ".ci" / "processor"
DEMO = Path("docs/demo.png")
TARGET = Path(".state/report/index.html")
FIGURES = ("report", EVALUATION)
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "pandas", "matplotlib", "dvc", "mlflow")


def environment() -> Chapter:
    """Return this machine and this environment, which need not be where the run was made."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    rows = [
        ("commit", _output("git", "describe", "--always", "--dirty")),
        ("machine", f"{platform.platform()}, {os.cpu_count()} cores, {device}"),
        ("processor", _output(str(PROCESSOR))),
        ("CPU kernels of torch", torch.backends.cpu.get_cpu_capability()),
        ("Python", platform.python_version()),
        *((name, version(name)) for name in PACKAGES),
    ]
    return Chapter("Environment of this page", (Table(("what", "found"), tuple(rows)),))


def _output(*words: str) -> str:
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"


def draw_demo() -> None:
    """Draw the scores of reports/evaluate/metrics.json and say where."""
    metrics = Path("reports/evaluate/metrics.json")
    if not metrics.is_file():
        raise Refusal(f"{metrics}: expected the scores of a run, found none: `make repro`")
    figure = six_scores(json.loads(metrics.read_text())["evaluate"])
    write_bytes(DEMO, figure_bytes(figure, "png"))
    print(DEMO.absolute().as_uri())


def write_page() -> None:
    """Write the page and say where."""
    reports = Path("reports")
    figures = [path for folder in FIGURES for path in sorted((reports / folder).glob("*.svg"))]
    if not figures:
        raise Refusal("reports/report: expected the report's figures, found none: `make repro`")
    drawings = {
        str(path.relative_to(reports).with_suffix("")): path.read_text() for path in figures
    }
    page = build_page(read_inputs(Path()), drawings)
    write_text(TARGET, to_html(replace(page, chapters=(*page.chapters, environment()))))
    print(TARGET.absolute().as_uri())


if __name__ == "__main__":
    try:
        draw_demo() if sys.argv[1:] == ["figure"] else write_page()
    except Refusal as refusal:
        sys.exit(f"error: {refusal}")
