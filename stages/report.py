"""Draw the figures and write the report: report/, evaluate/figures/, index.html, summary.md."""

from pathlib import Path

from ecg_core import tracking
from ecg_core.figures import figure_bytes
from ecg_core.outputs import write_bytes, write_text
from ecg_core.report_content import EVALUATION, build_page, draw_all
from ecg_core.report_inputs import read_inputs
from ecg_core.report_page import to_html, to_markdown
from stages.command import run_stage

REPORTS = Path("reports")
CLASSIFIER = Path("models/finetuned/model.safetensors")
KINDS = ("svg", "png", "pdf")
WRITTEN = ("report", EVALUATION, "index.html", "summary.md")


def main() -> None:
    """Bring the stages' tables together."""
    inputs = read_inputs(Path())
    with tracking.run("report") as run:
        run.log_model(CLASSIFIER)
        drawings = {}
        for place, figure in draw_all(inputs).items():
            files = {kind: figure_bytes(figure, kind) for kind in KINDS}
            for kind, content in files.items():
                write_bytes(REPORTS / f"{place}.{kind}", content)
            drawings[place] = files["svg"].decode()
        page = build_page(inputs, drawings)
        write_text(REPORTS / "index.html", to_html(page))
        write_text(REPORTS / "summary.md", to_markdown(page))
        run.log_artifacts([REPORTS / name for name in WRITTEN])


if __name__ == "__main__":
    run_stage(main, __doc__)
