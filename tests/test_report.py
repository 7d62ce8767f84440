"""The report stage on a small finished project: what it says, and that it can be made again."""

import hashlib
import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest

from ecg_core.params import read_yaml
from ecg_core.refusal import Refusal
from ecg_core.report_content import build_page, draw_all
from ecg_core.report_inputs import PUBLISHED_FILE, Inputs, read_inputs
from ecg_core.report_page import to_markdown
from ecg_core.report_tables import scale_of
from experiments import view
from stages import report
from tests.report_example import write_identification, write_project
from tests.test_report_page import read


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_project(root)
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("mlflow: true", "mlflow: false"))
    return root


@pytest.fixture(scope="module")
def inputs(project: Path) -> Inputs:
    return read_inputs(project)


def checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def summary(inputs: Inputs) -> str:
    return to_markdown(build_page(inputs, {}))


def row_of(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_stage_writes_every_figure_and_a_page_the_same_bytes_each_time(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("DVC_ROOT", str(project))
    assert set(report.KINDS) == {"svg", "png", "pdf"}
    monkeypatch.setattr(report, "KINDS", ("svg",))
    report.main()
    first = checksums(project / "reports")
    report.main()
    assert checksums(project / "reports") == first
    reports = project / "reports"
    names = {str(path.relative_to(reports)) for path in reports.rglob("*.svg")}
    for plot in ("pretrain_loss", "finetune_loss", "cinc"):
        assert f"report/{plot}.svg" in names
    for plot in ("scores", "per_class", "leads", "calibration"):
        assert f"evaluate/figures/{plot}.svg" in names
    for picture in re.findall(r"\]\(([^)]+)\.png\)", (reports / "summary.md").read_text()):
        assert (reports / f"{picture}.svg").is_file()
    page = (project / "reports" / "index.html").read_text()
    reader = read(page)
    assert page.count("<svg ") == len(names)
    assert set(reader.links) <= {f"#{name}" for name in reader.ids} | {"data:,"}
    assert len(set(reader.ids)) == len(reader.ids)
    for secret in (str(project), r"\d\d:\d\d:\d\d", r"[Mm]atplotlib v?\d", "/usr/", "/home/"):
        assert not re.search(secret, page)
    view.write_page()
    viewed = (project / ".state/report/index.html").read_text()
    assert version("torch") in viewed
    assert viewed.startswith(page[: page.index("</nav>")].rsplit("</a>", 1)[0])


def test_the_headline_puts_report_paper_and_this_run_side_by_side(inputs: Inputs) -> None:
    text = summary(inputs)
    heading = (
        "| quantity | unit | the report (full scale) | the paper (full scale) | this run (demo"
    )
    assert heading in text
    loss, cinc = row_of(text, "pretraining loss"), row_of(text, "CinC 2021, test, 12 leads, by 5-s")
    assert loss[2:4] == ["2.552", "–"]
    assert cinc[2:] == ["0.665", "0.732 ± 0.004", "0.123 [0.023, 0.223]"]
    assert row_of(text, "finetuning loss")[1:3] == ["bits a positive label", "3.072"]
    assert row_of(text, "patient identification")[3] == "57.7 (second-hand)"
    assert row_of(text, "CinC 2021, test, 1 lead")[3] == "0.554 (second-hand)"


def test_a_demo_says_so_first_with_the_trivial_scores_and_the_number_of_recordings(
    inputs: Inputs,
) -> None:
    warning = summary(inputs).split("\n\n")[1]
    assert warning.startswith("**DEMO SCALE: 60 recordings, a model of 2 layers of 96")
    assert "24 test recordings" in warning
    assert "nothing scores -1.105" in warning
    assert "cannot be compared" in warning


def test_only_the_reports_model_on_whole_archives_is_full_scale(inputs: Inputs) -> None:
    report_model = inputs.published["parameters"]["report"]
    full = {**inputs.params, **report_model, "data.mirror": "https://example.org"}
    archives = pd.concat([inputs.manifest] * 1500)
    assert scale_of(replace(inputs, params=full, manifest=archives)) == "FULL SCALE"
    assert scale_of(replace(inputs, params=full)) == "REDUCED SCALE"
    mini = {**inputs.params, "data.mirror": "https://example.org"}
    assert scale_of(replace(inputs, params=mini, manifest=archives)) == "REDUCED SCALE"


def test_no_number_of_the_paper_is_shown_that_the_study_does_not_have() -> None:
    published = read_yaml(PUBLISHED_FILE)
    stated = {str(row["paper"]) for row in published["results"] if row["paper"]}
    assert stated == {"0.732 ± 0.004", "0.554 (second-hand)", "57.7 (second-hand)"}
    stated = {str(row["report"]) for row in published["results"] if row["report"]}
    assert stated == {"2.552", "close to 61", "3.072", "0.665"}


def test_parameters_that_differ_from_report_or_paper_are_listed_and_no_others(
    inputs: Inputs,
) -> None:
    text = summary(inputs)
    assert row_of(text, "optimization.max_epoch")[1:] == ["55", "200", "55"]
    assert row_of(text, "model.encoder_layers")[1:] == ["12", "12", "2"]
    assert "| task.mask_leads_prob" not in text


def test_an_imported_checkpoint_has_no_pretraining_curve(inputs: Inputs) -> None:
    imported = replace(inputs, pretrain=pd.DataFrame())
    assert "report/pretrain_loss" not in draw_all(imported)
    assert row_of(summary(imported), "pretraining epochs")[-1] == "imported checkpoint"


def test_refusals_and_the_leak_report_are_on_the_page(inputs: Inputs) -> None:
    text = summary(inputs)
    assert row_of(text, "ptb ") == ["ptb", "other rate", "1"]
    assert "| shared by | signal | recording | patient |" in text
    assert row_of(text, "test, pretrain")[1:] == ["0", "0", "2"]
    assert row_of(text, "identification's patients | 0")[1:] == ["0", "1"]
    assert row_of(text, "finetune_test")[1:] == ["60", "24", "24"]
    assert re.search(r"60 records kept, 1 refused", text)


def test_sources_have_their_score_with_its_interval(inputs: Inputs) -> None:
    text = summary(inputs)
    assert row_of(text, "georgia | 10")[1:] == ["10", "0.100 [0.000, 0.200]", "0.700"]


def test_identification_is_shown_where_the_pipeline_has_it(inputs: Inputs, tmp_path: Path) -> None:
    assert row_of(summary(inputs), "patient identification")[-1] == "not part of this pipeline"
    write_project(tmp_path)
    write_identification(tmp_path)
    text = summary(read_inputs(tmp_path))
    assert row_of(text, "patient identification")[-1] == "25.0 [10.0, 40.0], 17 patients"
    assert row_of(text, "1 leads")[1] == "25.0 [10.0, 40.0]"
    assert row_of(text, "by chance")[1:] == ["5.9", "29.4", "50.0"]


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    write_project(tmp_path)
    (tmp_path / "reports/evaluate/leads.csv").unlink()
    with pytest.raises(Refusal, match=r"evaluate/leads.csv: expected a table"):
        read_inputs(tmp_path)
