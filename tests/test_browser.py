"""The pages that people look at, opened in a real browser that sees no other host.

The screenshots are there to be looked at: .state/screenshots of the project.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ecg_core import tracking
from stages import report
from tests.browser import Browser, chromium, free_port, wait_for
from tests.report_example import pretrain_history, write_project

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / ".state" / "screenshots"
BLANK = 20  # colours: an empty page has one or two
WIDER_THAN_THE_WINDOW = (
    "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as window:
        PICTURES.mkdir(parents=True, exist_ok=True)
        yield window


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return tmp_path


def hosts(addresses: list[str]) -> set[str]:
    return {urlsplit(address).hostname or "" for address in addresses}


def test_the_report_page_shows_every_picture_and_asks_no_other_host(
    project: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("mlflow: true", "mlflow: false"))
    monkeypatch.setattr(report, "KINDS", ("svg",))
    report.main()
    browser.requested()
    seen = (
        ("report", 1200, "light"),
        ("report-dark", 1200, "dark"),
        ("report-phone", 390, "light"),
        ("report-phone-dark", 390, "dark"),
    )
    for name, width, scheme in seen:
        browser.open((project / "reports" / "index.html").as_uri(), width=width, scheme=scheme)
        assert browser.run("return innerWidth") == width
        paper = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(15, 19, 24)" if scheme == "dark" else "rgb(255, 255, 255)")
        assert browser.console() == []
        sizes = browser.run(
            "return [...document.querySelectorAll('figure svg')].map("
            "s => [s.getBoundingClientRect().width, s.getBoundingClientRect().height])"
        )
        assert len(sizes) == 9
        assert all(across > 200 and down > 80 for across, down in sizes)
        assert browser.run(WIDER_THAN_THE_WINDOW) <= 0
        assert browser.screenshot(PICTURES / f"{name}.png") > BLANK
    assert 4 < browser.print(PICTURES / "report.pdf") < 20
    addresses = browser.requested()
    assert {urlsplit(address).scheme for address in addresses} <= {"file", "data"}


def test_dvcs_plots_are_drawn_without_another_host(project: Path, browser: Browser) -> None:
    shutil.copytree(ROOT / ".dvc", project / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    (project / "dvc.yaml").write_text(
        "plots:\n  - reports/pretrain/history.csv:\n      x: epoch\n      y: loss\n"
        "      title: Pretraining loss\n      x_label: epoch\n      y_label: bits a target\n"
    )
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["dvc", "plots", "show", "-q"], check=True)
    browser.requested()
    browser.open((project / "dvc_plots" / "index.html").as_uri())
    drawn = "return document.querySelectorAll('canvas, svg.marks').length"
    assert wait_for(lambda: browser.run(drawn)) == 1
    assert browser.console() == []
    assert browser.screenshot(PICTURES / "dvc-plots.png") > BLANK
    assert {urlsplit(address).scheme for address in browser.requested()} <= {"file", "data", "blob"}


def test_the_mlflow_ui_shows_a_run_and_asks_no_other_host(project: Path, browser: Browser) -> None:
    with tracking.run("pretrain") as run:
        for row in pretrain_history(3).to_dict("records"):
            values = {str(name): float(value) for name, value in row.items()}
            run.log_metrics(values, step=int(values.pop("epoch")))
    port = free_port()
    store = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db"}
    words = ["make", "-s", "-C", str(ROOT), "ui", f"PORT={port}"]
    with (project / "server.log").open("wb") as log:
        server = subprocess.Popen(words, env=store, stdout=log, stderr=log, start_new_session=True)
    try:
        browser.requested()
        page = f"http://127.0.0.1:{port}/#/experiments/1/runs"
        wait_for(lambda: browser.open(page) or True)
        text = "return document.body.innerText"
        wait_for(lambda: "no-git" in browser.run(text))
        assert "ecg-pretraining" in browser.run(text)
        assert browser.screenshot(PICTURES / "mlflow.png") > BLANK
        assert hosts(browser.requested()) <= {"127.0.0.1", ""}
    finally:
        os.killpg(server.pid, 15)
        server.wait()
