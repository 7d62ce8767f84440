"""The words a person types do what the README says, also where something is missing."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]

# stands for python: says which version it is, makes an "environment", and notes every pip call
FAKE_PYTHON = """\
#!/bin/sh
case "$*" in
  -c*) echo {version} ;;
  *"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *"-m pip install"*) echo installed >> calls.txt ;;
esac
"""


def make(folder: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *words],
        cwd=folder,
        env={**clean, "GIT_CEILING_DIRECTORIES": str(folder.parent), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    """A folder with the Makefile, requirements, and a python of our own in it."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\n")
    install_python(tmp_path, "3.11")
    return tmp_path


def install_python(folder: Path, version: str) -> None:
    python = folder / "python"
    python.write_text(FAKE_PYTHON.format(version=version))
    python.chmod(0o755)


def test_make_alone_lists_every_target_that_a_person_types(tmp_path: Path) -> None:
    listed = make(ROOT).stdout
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    for target in set(phony[1].split()) - {"git"}:
        assert f"make {target} " in listed


def test_env_installs_once_and_again_when_the_requirements_change(shell: Path) -> None:
    def calls() -> int:
        answer = make(shell, "env", f"PYTHON={shell}/python")
        assert answer.returncode == 0, answer.stderr
        return (shell / "calls.txt").read_text().count("installed")

    assert calls() == 1
    assert calls() == 1
    (shell / "requirements.txt").write_text("torch==2.13.0\ndvc\n")
    assert calls() == 2


def test_an_installation_that_fails_is_tried_again(shell: Path) -> None:
    python = shell / "python"
    whole = python.read_text()
    python.write_text(whole.replace("echo installed >> calls.txt", "exit 1"))
    assert make(shell, "env", f"PYTHON={python}").returncode != 0
    shutil.rmtree(shell / ".venv")
    python.write_text(whole)
    assert make(shell, "env", f"PYTHON={python}").returncode == 0
    assert (shell / "calls.txt").read_text().count("installed") == 1


def test_another_python_is_refused_and_what_to_do_is_said(shell: Path) -> None:
    install_python(shell, "3.12")
    answer = make(shell, "env", f"PYTHON={shell}/python")
    assert answer.returncode != 0
    assert "expected Python 3.11" in answer.stderr
    assert "3.12" in answer.stderr
    assert "PYTHON=/path/to/python3.11" in answer.stderr


def test_an_unpacked_archive_without_git_says_what_is_missing(shell: Path) -> None:
    answer = make(shell, "repro", f"PYTHON={shell}/python")
    assert answer.returncode != 0
    assert "expected a git repository" in answer.stderr
    assert "git init" in answer.stderr
    assert not (shell / ".venv").exists()


def test_forget_discards_states_but_not_mlflows_run_ids_or_fetched_segments(shell: Path) -> None:
    for name in ("mlflow", "segments-cache", "pretrain-0a1b2c", "finetune-3d4e5f"):
        (shell / ".state" / name).mkdir(parents=True)
    assert make(shell, "forget").returncode == 0
    left = sorted(path.name for path in (shell / ".state").iterdir())
    assert left == ["mlflow", "segments-cache"]
    assert make(shell, "clean").returncode == 0
    assert not (shell / ".state/segments-cache").exists()


@pytest.mark.parametrize("script", [".ci/run", ".ci/processor"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert subprocess.run(["bash", "-n", ROOT / script], check=False).returncode == 0
    assert "set -euo pipefail" in (ROOT / script).read_text()


def test_dvc_reports_to_no_one_and_stages_nothing_by_itself() -> None:
    config = (ROOT / ".dvc" / "config").read_text()
    for setting in ("analytics", "check_update", "autostage"):
        assert f"{setting} = false" in config
    assert set((ROOT / ".dvc" / ".gitignore").read_text().split()) >= {"/tmp", "/cache"}


def test_licences_and_attributions_are_in_place() -> None:
    licence = (ROOT / "LICENSE").read_text()
    assert licence.startswith("MIT License")
    for words in (
        "BSD 2-Clause License\n\nCopyright (c) 2020, 2021 PhysioNet/Computing in Cardiology",
        "Creative Commons Attribution 4.0",
        "BSD 3-Clause",
    ):
        assert words in licence
    for name in ("Perez Alday", "Reyna", "Goldberger", "Wagner", "Liu", "Zheng", "Bousseljot"):
        assert name in licence
    citation = YAML(typ="safe").load(ROOT / "CITATION.cff")
    assert {"cff-version", "title", "message", "authors", "license"} <= set(citation)
    assert citation["references"][0]["authors"][0]["family-names"] == "Oh"
