"""Every command in README.md and docs/ is known here: run at tiny scale, or parsed with a reason.

A command is a line of a fenced or indented block, or an inline code span that begins with a
program's name. All are parsed by what will read them (make, dvc, a module's --help, bash). Beyond
that KNOWN says of each which test runs it, or why it is only parsed; one that is not there fails.
"""

import hashlib
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from dvc.cli import parse_args

from ecg_core.evaluation_figures import six_scores
from ecg_core.figures import figure_bytes
from ecg_core.params import read_yaml
from tests.report_example import write_project
from tests.stages.example_data import example_project

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = (
    "make", "dvc", "python", "pip", "git", "source", "export", "cd", "bash", "sh", "find", "rm",
    "cp", "torchrun", "mlflow", "sbatch", "srun", "docker", "kill", "curl", "wget",
)  # fmt: skip

RUN_HERE = "test_readme.py"
"""Run by a test below."""

KNOWN: dict[str, str] = {
    # regular expression of the whole command: the test that runs it, or why it is only parsed
    r"make repro": "test_whole_pipeline.py::test_one_command_leads_from_records_to_scores_and_fig",
    r"make test": "only parsed: it runs this",
    r"make env": "test_shell.py::test_env_installs_once_and_again_when_the_requirements_change",
    r"make ui": "test_browser.py::test_the_mlflow_ui_shows_a_run_and_asks_no_other_host",
    r"make exp( .*)?": "test_experiments.py::test_a_sweep_over_seeds_goes_on_where_it_stopped",
    r"make (params|diff) .*": RUN_HERE,
    r"make compare( .*)?": "test_experiments.py::test_the_committed_run_stands_beside_an_experi",
    r"make page": "test_report.py::test_the_stage_writes_every_figure_and_a_page",
    r"make figure": RUN_HERE,
    r"make mlflow-sync": "test_tracking.py::test_sync_logs_reports_of_stages_that_did_not_run",
    r"make forget": "test_shell.py::test_forget_discards_states_but_not_mlflows_run_ids",
    r"make clean": RUN_HERE,
    r"make bench": "only parsed: steps of the full model, kills and all",
    r"make estimate": "only parsed: two minutes of the full model",
    r"python -m benchmarks\.(cost --write|index|kills|step|tricks)": "only parsed: it times",
    r"source \.venv/bin/activate": "only parsed: `make env` makes it",
    r"python -m stages\.NAME --help": RUN_HERE,
    r"python -m stages\.predict .*": "stages/test_predict_and_embed.py::test_predict_prints_a_tab",
    r"python -m stages\.embed .*": "stages/test_predict_and_embed.py::test_embed_writes_what_the",
    r"python -m ecg_core\.models\.fairseq_checkpoint .*": (
        "models/test_fairseq_checkpoint.py::test_the_command_line_converts_in_both_directions"
    ),
    r"python tests/parity\.py tests/golden": "test_parity.py::test_this_project_computes_the_numb",
    r"python benchmarks/curves\.py": "only parsed: hours, on recordings that are not embedded",
    r"python -m benchmarks\.(archives|precision) .*": "only parsed: needs archives",
    r"dvc repro": "test_whole_pipeline.py::test_a_second_repro_runs_nothing",
    r"dvc repro (-f|--force|--single-item) .*": "only parsed: dvc repro of one stage",
    r"dvc exp run -S .*": "training/test_resume.py::test_a_longer_run_goes_on_from_a_finished_sho",
    r"dvc exp run --temp .*": "test_experiments.py::test_a_sweep_over_seeds_goes_on_where_it_stop",
    r"dvc (exp show|metrics diff)": "test_experiments.py::test_the_committed_run_stands_beside",
    r"dvc plots show": "test_browser.py::test_dvcs_plots_are_drawn_without_another_host",
    r"dvc exp apply( .*)?": "only parsed: DVC's own, on an experiment's name",
    r"dvc exp (push|pull) .*": "only parsed: needs a git server",
    r"dvc (remote add .*|push|pull)": RUN_HERE,
    r"torchrun .*": "only parsed: tests/side_by_side.py forks processes as torchrun starts them",
    r"dvc commit pretrain": "only parsed: DVC's own",
    r"dvc gc .*": "only parsed: it deletes",
    r"export MLFLOW_TRACKING_URI=.*": "test_tracking.py::test_a_server_that_is_down_is_said_once",
    r"find \. .*sha256sum.*": RUN_HERE,
    r"rm -r": "only parsed: on a folder of one's own",
    r"git (show|diff|pull)": "only parsed: git's own",
}


class Command(NamedTuple):
    """A command as it is written, and where."""

    page: str
    line: int
    text: str


def blocks(page: Path) -> Iterator[tuple[str, int, list[str]]]:
    """Yield each block of code: its language ("" if none), its first line's number, its lines."""
    lines = page.read_text().splitlines()
    language: str | None = None
    block: list[str] = []
    for number, line in enumerate(lines, 1):
        fence = line.strip().startswith("```")
        if fence and language is None:
            language, block = line.strip()[3:].strip(), []
        elif fence:
            yield language or "", number - len(block), block
            language = None
        elif language is not None:
            block.append(line)
        elif line.startswith("    "):
            yield "", number, [line.strip()]


def commands(page: Path) -> Iterator[Command]:
    """Yield every command of a page."""
    for language, first, lines in blocks(page):
        if language in ("", "sh", "bash", "console"):
            for number, line in enumerate(lines, first):
                for text in split(line):
                    yield Command(page.name, number, text)
    prose = re.sub(r"^```.*?^```", lambda m: "\n" * m[0].count("\n"), page.read_text(),
                   flags=re.MULTILINE | re.DOTALL)  # fmt: skip
    for match in re.finditer(r"`([^`]+)`", prose):
        text = " ".join(match[1].split())
        if text.split()[0] in PROGRAMS and (" " in text or text == "make"):
            number = prose[: match.start()].count("\n") + 1
            yield from (Command(page.name, number, part) for part in split(text))


def split(line: str) -> list[str]:
    """Return the commands of a line, without its comment; a shell's own `+` and `;` stay inside."""
    text = re.sub(r"(^|\s+)#\s.*$", "", line).strip()
    return [part for part in re.split(r"\s*(?:;|&&)\s+", text) if part]


ALL = [command for page in PAGES for command in commands(page)]


def how(command: Command) -> str | None:
    """Return what KNOWN says of a command."""
    return next((how for known, how in KNOWN.items() if re.fullmatch(known, command.text)), None)


def test_there_are_commands_on_the_page_and_all_kinds_are_found() -> None:
    found = {command.text for command in ALL}
    assert {"make repro", "dvc metrics diff", "python -m stages.predict RECORD..."} <= found
    assert "python tests/parity.py tests/golden" in found
    assert not [text for text in found if "#" in text]


@pytest.mark.parametrize("command", ALL, ids=lambda one: f"{one.page}:{one.line}: {one.text}")
def test_every_command_is_known_and_parsed_by_what_reads_it(command: Command) -> None:
    place = f"{command.page}:{command.line}"
    said = how(command)
    assert said is not None, f"{place}: no test knows `{command.text}`: add it to KNOWN and run it"
    if "::" in said:
        file, name = said.split("::")
        assert re.search(rf"^def {name}", (ROOT / "tests" / file).read_text(), re.MULTILINE), said
    PARSERS.get(command.text.split()[0], parsed_by_bash)(command.text)


def test_no_entry_of_the_list_is_without_its_command() -> None:
    idle = [known for known in KNOWN if not any(re.fullmatch(known, c.text) for c in ALL)]
    assert idle == []


def parsed_by_bash(text: str) -> None:
    plain = text.replace("…", "...").replace("{}", "x")
    assert subprocess.run(["bash", "-n", "-c", plain], check=False).returncode == 0


def parsed_by_make(text: str) -> None:
    words = [word for word in shlex.split(text) if word != "make"]
    (target,) = [word for word in words if "=" not in word]
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target
    for name in (word.split("=")[0] for word in words if "=" in word):
        assert f"$({name})" in makefile, f"the Makefile has no {name}"
    answer = make(ROOT, "-n", *words)
    assert answer.returncode == 0, answer.stderr


def parsed_by_dvc(text: str) -> None:
    words = shlex.split(text.replace("-S …", "-S common.seed=1"))[1:]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        given = vars(parse_args(words))
    for value in given.get("set_param") or []:
        section, name = value.split("=")[0].split(".")
        assert name in read_yaml(ROOT / "params.yaml")[section], value
    for stage in given.get("targets") or []:
        assert stage in read_yaml(ROOT / "dvc.yaml")["stages"]


def parsed_by_python(text: str) -> None:
    words = shlex.split(text)[1:]
    stages = list(read_yaml(ROOT / "dvc.yaml")["stages"]) if "NAME" in text else [""]
    for stage in stages:
        module = words[1].replace("NAME", stage) if words[0] == "-m" else words[0]
        said = help_of(module)
        for flag in (word for word in words if word.startswith("--")):
            assert flag in said, f"{module} has no {flag}"
        for choice in re.findall(r"\{([^}]+)\}", text):
            assert all(word in said for word in choice.split(","))


@cache
def help_of(module: str) -> str:
    """Return what a module or a script of ours prints for --help."""
    file = module if module.endswith(".py") else module.replace(".", "/") + ".py"
    assert (ROOT / file).is_file(), file
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # runpy warns of modules that tests have imported
        patch.setattr(sys, "argv", [file, "--help"])
        patch.chdir(ROOT)
        by_file = module.endswith(".py")
        if by_file:
            patch.syspath_prepend((ROOT / file).parent)
        start = partial(runpy.run_path, file) if by_file else partial(runpy.run_module, module)
        with pytest.raises(SystemExit) as leaving:
            start(run_name="__main__")
    assert leaving.value.code == 0
    return said.getvalue()


PARSERS = {"make": parsed_by_make, "dvc": parsed_by_dvc, "python": parsed_by_python}


def make(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run make with this interpreter's programs, without making .venv or asking for git."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    return subprocess.run(
        ["make", "-o", "env", "-o", "git", *words],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder in which the words of the Makefile work, with a small finished run."""
    for name in ("ecg_core", "experiments", "stages"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "docs").mkdir()
    write_project(tmp_path)
    return tmp_path


def written(pattern: str) -> list[str]:
    """Return the commands of the pages that match."""
    return sorted({command.text for command in ALL if re.fullmatch(pattern, command.text)})


def test_overlays_are_written_and_compared_as_the_readme_says(project: Path) -> None:
    for text in written(r"make diff .*"):
        answer = make(project, *shlex.split(text)[1:])
        assert answer.returncode == 0, answer.stderr
        assert re.search(r"^optimization.max_epoch +55 +200$", answer.stdout, re.MULTILINE)
    for text in written(r"make params .*"):
        answer = make(project, *shlex.split(text)[1:])
        assert answer.returncode == 0, answer.stderr
        assert read_yaml(project / "params.yaml")["model"]["encoder_layers"] == 12


def test_the_figure_of_the_readme_is_drawn_from_the_committed_metrics(project: Path) -> None:
    assert make(project, "figure").returncode == 0
    for folder in (project, ROOT):
        metrics = json.loads((folder / "reports/evaluate/metrics.json").read_text())
        drawn = figure_bytes(six_scores(metrics["evaluate"]), "png")
        assert (folder / "docs/demo.png").read_bytes() == drawn, "another run's: make figure"


def test_clean_leaves_what_it_promises_to_leave(project: Path) -> None:
    gone = ("models/m", "data/segments/s", ".state/pretrain-0a/s", ".pytest_cache/c")
    kept = ("data/raw/r", ".venv/v", "mlflow.db", ".dvc/cache/c", ".state/mlflow/m", "reports/r")
    for name in (*gone, *kept):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("")
    assert make(project, "clean").returncode == 0
    assert [name for name in gone if (project / name).exists()] == []
    assert [name for name in kept if not (project / name).exists()] == []


def test_the_listing_of_an_archive_of_ones_own_is_made_as_the_readme_says(tmp_path: Path) -> None:
    (tmp_path / "g1").mkdir()
    (tmp_path / "g1/A 1.hea").write_bytes(b"header")
    (command,) = written(r"find \. .*")
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    expected = f"{hashlib.sha256(b'header').hexdigest()}  ./g1/A 1.hea\n"
    assert (tmp_path / "SHA256SUMS.txt").read_text() == expected


def test_results_are_shared_through_a_remote_as_the_readme_says(tmp_path: Path) -> None:
    here, there, store = (tmp_path / name for name in ("here", "there", "store"))
    here.mkdir()
    (here / "dvc.yaml").write_text("stages: {a: {cmd: echo 1 > out.txt, outs: [out.txt]}}\n")
    (add,) = written(r"dvc remote add .*")
    prepare = ("dvc init --no-scm", "dvc repro", re.sub(r"\S+$", str(store), add), "dvc push")

    def run(folder: Path, text: str) -> None:
        program = Path(sys.executable).parent / "dvc"
        words = [str(program), *shlex.split(text)[1:], "-q"]
        subprocess.run(words, cwd=folder, check=True)

    for text in prepare:
        run(here, text)
    without_cache = shutil.ignore_patterns("cache", "tmp", "out.txt")
    shutil.copytree(here, there, ignore=without_cache)
    assert written(r"dvc pull") == ["dvc pull"]
    run(there, "dvc pull")
    assert (there / "out.txt").read_text() == "1\n"


@pytest.mark.parametrize(
    "code",
    [pytest.param("\n".join(lines), id=f"{page.name}:{first}")
     for page in PAGES for language, first, lines in blocks(page) if language == "python"],
)  # fmt: skip
def test_code_for_a_notebook_runs_on_a_small_model(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(example_project(tmp_path / "project", {}))
    names = {"signal_mv": torch.randn(3, 12, 2500)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(code, "README.md", "exec"), names)
    assert names["vectors"].shape == (
        3,
        read_yaml(Path("params.yaml"))["model"]["encoder_embed_dim"],
    )
    assert torch.isfinite(names["vectors"]).all()
