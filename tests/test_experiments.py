"""Overlays fit params.yaml, and the runner does with them what a person would do by hand."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ecg_core.params import BadParams, read_yaml
from ecg_core.refusal import Refusal
from ecg_core.report_inputs import PUBLISHED_FILE
from experiments import compare, run
from tests.report_example import write_project

ROOT = Path(__file__).parents[1]
OVERLAYS = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))
NUMBERS = (int, float)


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    parts = [leaves(value, f"{prefix}{key}.") for key, value in tree.items()]
    return {key: value for part in parts for key, value in part.items()}


def same_type(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return True
    if isinstance(one, list) and isinstance(other, list):
        return not one or not other or same_type(one[0], other[0])
    if isinstance(one, bool) or isinstance(other, bool):
        return isinstance(one, bool) and isinstance(other, bool)
    return type(one) is type(other)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_named_experiments_are_there() -> None:
    assert set(OVERLAYS) == {
        "full", "paper200", "upstream", "wav2vec2", "cmsc_only", "no_rlm", "small",
        "finetune_as_pretrain", "demo_paper",
    }  # fmt: skip


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_has_only_keys_of_params_yaml_with_the_same_types_and_other_values(
    name: str,
) -> None:
    params = leaves(read_yaml(ROOT / "params.yaml"))
    overlay = leaves(read_yaml(ROOT / "experiments" / f"{name}.yaml"))
    assert set(overlay) <= set(params)
    wrong = {key: (overlay[key], params[key]) for key in overlay
             if not same_type(overlay[key], params[key])}  # fmt: skip
    assert wrong == {}
    if name not in ("paper200", "upstream", "finetune_as_pretrain"):  # they go on top of full
        assert [key for key in overlay if overlay[key] == params[key]] == []


def test_full_is_the_reports_configuration_and_paper200_takes_back_what_the_report_changed() -> (
    None
):
    stated = read_yaml(PUBLISHED_FILE)["parameters"]
    params = leaves(read_yaml(ROOT / "params.yaml"))
    full = params | run.overlay_values(["full"])
    assert {key: full[key] for key in stated["report"]} == stated["report"]
    changed = {key: value for key, value in stated["paper"].items() if key != "finetune.max_epoch"}
    assert run.overlay_values(["paper200"]) == changed


def test_diff_prints_exactly_the_rows_of_the_report_that_say_changed(project: Path) -> None:
    assert run.differences(["full"], ["full", "paper200"]) == [
        ("task.enable_padding_leads", "true", "false"),
        ("task.leads_to_load", "[0,1,2,3,4,5,6,7,8,9,10,11]", "null"),
        ("dataset.num_workers", "1", "6"),
        ("dataset.batch_size", "16", "128"),
        ("distributed_training.distributed_world_size", "1", "4"),
        ("optimization.max_epoch", "55", "200"),
    ]


def test_params_writes_an_overlay_and_keeps_every_comment(project: Path) -> None:
    before = (project / "params.yaml").read_text()
    run.write_params([])
    assert (project / "params.yaml").read_text() == before
    run.write_params(["full", "paper200"])
    after = (project / "params.yaml").read_text()
    assert after.count("#") == before.count("#")
    wanted = leaves(YAML(typ="safe").load(before)) | run.overlay_values(["full", "paper200"])
    assert leaves(read_yaml(project / "params.yaml")) == wanted
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    assert sum(one != other for one, other in pairs) < len(before.splitlines())


def test_an_unknown_overlay_or_key_is_refused_by_name(project: Path) -> None:
    with pytest.raises(BadParams, match="found 'papier'"):
        run.overlay_values(["papier"])
    (project / "params.yaml").write_text("task: {p: [1.0]}\n")
    with pytest.raises(BadParams, match=r"paper200.yaml: not in params.yaml: task.enable_padding"):
        run.overlay_values(["paper200"])


def test_values_are_written_as_dvc_reads_them() -> None:
    values = {"a": None, "b": True, "c": [[256, 2, 2]], "d": 5e-05, "e": "https://x.org/f", "f": ""}
    assert run.flags(values)[1::2] == [
        "a=null", "b=true", "c=[[256,2,2]]", "d=5e-05", "e=https://x.org/f", "f=''",
    ]  # fmt: skip


def test_names_are_told_apart_by_what_set_adds() -> None:
    assert run.experiment_name(["full", "demo_paper"], []) == "full-demo-paper"
    one, other = (run.experiment_name(["full"], ["-S", f"common.seed={n}"]) for n in (1, 2))
    assert one != other
    assert one.startswith("full-")


# one stage that turns the seed into a score; what a real pipeline would take minutes for
DVC_YAML = """\
stages:
  evaluate:
    cmd: python score.py
    params: [common, optimization]
    deps: [score.py]
    metrics:
      - reports/evaluate/metrics.json: {cache: false}
"""
SCORE = """\
import json, pathlib
from ruamel.yaml import YAML
params = YAML(typ="safe", pure=True).load(pathlib.Path("params.yaml"))
score = params["common"]["seed"] / 10 + params["optimization"]["lr"][0]
names = ["cinc_fixed", "cinc_class_tuned", "auroc_macro", "auroc_micro", "auprc_macro"]
tree = {"recordings": 24, "recording": {name: score for name in names}}
tree["recording"]["cinc_of_nothing_predicted"] = -1.0
tree["interval"] = {"recording": {name: {"low": 0, "high": 1} for name in names}}
path = pathlib.Path("reports/evaluate/metrics.json")
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(json.dumps({"evaluate": tree}))
"""


@pytest.fixture
def repository(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git and DVC repository with a pipeline of one quick stage."""
    for name in list(os.environ):
        if name.startswith(("GIT_", "DVC_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("HOME", str(project))
    shutil.copytree(ROOT / ".dvc", project / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    (project / "dvc.yaml").write_text(DVC_YAML)
    (project / "score.py").write_text(SCORE)
    for words in (
        ["init", "-q"],
        ["config", "user.name", "Someone"],
        ["config", "user.email", "someone@example.org"],
        ["add", "."],
        ["commit", "-q", "-m", "A project"],
    ):
        subprocess.run(["git", *words], check=True)
    return project


def test_a_sweep_over_seeds_goes_on_where_it_stopped_and_reports_mean_and_spread(
    repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (repository / "params.yaml").read_text()
    extra = ["-S", "optimization.lr=[0.5]"]
    run.run_experiments([], extra, seeds=[1])
    capfd.readouterr()
    run.run_experiments([], extra, seeds=[1, 3])
    said = capfd.readouterr().out
    base = run.experiment_name([], extra)
    assert f"{base}-seed1: finished before" in said
    assert f"+ dvc exp run --temp -n {base}-seed3 -S 'optimization.lr=[0.5]' -S common" in said
    assert "2 of 2 runs finished" in said
    assert "0.700 ± 0.141 (n = 2)" in said  # of 0.6 and 0.8
    assert (repository / "params.yaml").read_text() == before
    assert not (repository / "reports").exists()
    compare.main([])
    page = (repository / ".state/compare/index.html").read_text()
    assert "0.700 ± 0.141 (n = 2)" in page
    row = page[page.index("common.seed</th>") :].split("</tr>")[0]
    assert re.findall(r">(\d)</td>", row) == ["1", "3"]
    commits = page[page.index("Commits and MLflow runs</h2>") :]
    for name in (f"{base}-seed1", f"{base}-seed3"):
        ref = subprocess.run(
            ["git", "for-each-ref", "--format=%(objectname)", f"refs/exps/**/{name}"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert re.search(rf"{name}</th><td[^>]*>{ref[:7]}", commits)


def test_the_committed_run_stands_beside_an_experiment_that_is_in_the_workspace(
    repository: Path,
) -> None:
    subprocess.run(["dvc", "repro", "-q"], check=True)
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(["git", "commit", "-q", "-m", "A finished run"], check=True)
    words = ["dvc", "exp", "run", "-q", "-n", "higher", "-S", "optimization.lr=[0.5]"]
    subprocess.run(words, check=True)
    shown, differences = (
        subprocess.run(["dvc", *words], capture_output=True, text=True, check=True).stdout
        for words in (["exp", "show", "--csv"], ["metrics", "diff", "--json"])
    )
    assert [line.split(",")[0] for line in shown.splitlines()[-1:]] == ["higher"]
    (changed,) = json.loads(differences).values()
    found = changed["evaluate.recording.cinc_fixed"]
    assert (found["old"], found["new"]) == pytest.approx((0.101, 0.6))
    compare.main([])
    page = (repository / ".state/compare/index.html").read_text()
    rows = re.findall(r'<th scope="row">([^<]+)</th><td[^>]*>([^<]*)', page)
    names = [name for name, _ in rows]
    assert (names.count("HEAD"), names.count("higher"), names.count("workspace")) == (2, 2, 0)
    differing = page[page.index("Parameters that differ</h2>") :]
    assert re.search(r"optimization.lr</th><td[^>]*>\[0.001\]</td><td[^>]*>\[0.5\]", differing)


def test_without_an_identity_git_is_told_what_to_set(project: Path) -> None:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "HOME": str(project)}
    environment |= {"PYTHONPATH": str(ROOT), "GIT_CEILING_DIRECTORIES": str(project.parent)}
    command = [sys.executable, "-m", "experiments.run", "exp", "--name", "no_rlm"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "git config user.email" in answer.stderr


def test_experiments_with_curves_are_overlaid_and_unknown_ones_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    compare.main([])
    page = (tmp_path / ".state/compare/index.html").read_text()
    assert page.count("<svg ") == 4
    assert (tmp_path / ".state/compare/pretrain_loss.pdf").is_file()
    assert "0.123 [0.023, 0.223]" in page
    with pytest.raises(Refusal, match="no experiment nobody; there are none"):
        compare.main(["nobody"])
    assert json.loads((tmp_path / "reports/split/metrics.json").read_text())
