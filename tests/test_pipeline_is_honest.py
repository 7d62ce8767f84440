"""dvc.yaml names what each stage needs, and the folders keep apart."""

import ast
import re
from pathlib import Path

import pytest

from ecg_core.params import read_yaml
from stage_imports import ROOT, imported_modules, needed_files
from stages.check import SECTIONS

DVC = read_yaml(ROOT / "dvc.yaml")["stages"]
PARAMS = read_yaml(ROOT / "params.yaml")
TRACKING = frozenset({Path("ecg_core/tracking.py")})
"""No dep of any stage: outputs are the same with tracking off (test_whole_pipeline.py)."""

NO_RESULT = {"finetune": {"checkpoint"}, "identify": {"checkpoint"}}
"""Read for save_interval_minutes alone, which changes no result."""

FOLDERS = ("records", "batches", "models", "training", "metrics")
CORE = sorted(path.relative_to(ROOT) for path in (ROOT / "ecg_core").rglob("*.py"))
STAGES = sorted(path.relative_to(ROOT) for path in (ROOT / "stages").glob("*.py"))


def covered(file: Path, deps: list[str]) -> bool:
    return any(file == Path(dep) or Path(dep) in file.parents for dep in deps)


@pytest.mark.parametrize("stage", DVC)
def test_deps_name_everything_that_a_stage_imports(stage: str) -> None:
    needed = needed_files(Path(f"stages/{stage}.py"), without=TRACKING)
    missing = [str(file) for file in sorted(needed) if not covered(file, DVC[stage]["deps"])]
    assert missing == []


@pytest.mark.parametrize("stage", [name for name in DVC if name != "check"])
def test_deps_name_no_code_that_a_stage_does_not_need(stage: str) -> None:
    needed = needed_files(Path(f"stages/{stage}.py"), without=TRACKING)
    for dep in DVC[stage]["deps"]:
        if dep.startswith(("ecg_core", "stages")):
            inside = [ROOT / dep] if (ROOT / dep).is_file() else sorted((ROOT / dep).glob("*.py"))
            files = {path.relative_to(ROOT) for path in inside if path.name != "__init__.py"}
            assert files <= needed, f"{stage} does not need all of {dep}"


def read_keys(stage: str) -> set[str]:
    """Return the sections that a stage's source reads from params.yaml."""
    text = (ROOT / f"stages/{stage}.py").read_text()
    return set(re.findall(r'\bread(?:_section)?\(\s*"(\w+)"', text))


@pytest.mark.parametrize("stage", [name for name in DVC if name not in ("check", "report")])
def test_params_name_every_section_that_a_stage_reads(stage: str) -> None:
    named = {key.split(".")[0] for key in DVC[stage].get("params", [])}
    assert read_keys(stage) - named - NO_RESULT.get(stage, set()) == set()
    for key in DVC[stage].get("params", []):
        section, _, name = key.partition(".")
        assert section in SECTIONS
        assert not name or name in PARAMS[section]


def test_no_stage_depends_on_tracking() -> None:
    for stage, entry in DVC.items():
        assert "tracking" not in {key.split(".")[0] for key in entry.get("params", [])}, stage
        if stage != "check":
            assert not covered(Path("ecg_core/tracking.py"), entry["deps"]), stage


@pytest.mark.parametrize("file", [path for path in CORE if path.parts[1] in FOLDERS], ids=str)
def test_no_folder_imports_another(file: Path) -> None:
    own = file.parts[1]
    others = {path.parts[1] for path in imported_modules(file) if len(path.parts) > 2} - {own}
    assert others == set()


@pytest.mark.parametrize("file", [p for p in CORE if len(p.parts) == 2], ids=str)
def test_what_all_share_imports_no_folder(file: Path) -> None:
    assert [path for path in imported_modules(file) if len(path.parts) > 2] == []


@pytest.mark.parametrize(("limit", "files"), [(250, CORE), (60, STAGES)], ids=["core", "stages"])
def test_files_are_short_enough_to_read(limit: int, files: list[Path]) -> None:
    long = {str(file): n for file in files if (n := (ROOT / file).read_text().count("\n")) > limit}
    assert long == {}


@pytest.mark.parametrize("file", CORE + STAGES, ids=str)
def test_functions_are_short_enough_to_read(file: Path) -> None:
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, node.name


def test_package_files_are_empty() -> None:
    assert [
        str(file) for file in CORE if file.name == "__init__.py" and (ROOT / file).stat().st_size
    ] == []


@pytest.mark.parametrize("file", CORE, ids=str)
def test_the_library_neither_prints_nor_evaluates_nor_swallows(file: Path) -> None:
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("print", "eval", "exec")
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None
            assert ast.unparse(node.type) not in ("Exception", "BaseException")
        assert not isinstance(node, ast.Assert)


def test_every_stage_is_a_word_in_five_places() -> None:
    for stage in DVC:
        assert (ROOT / f"stages/{stage}.py").is_file()
        assert DVC[stage]["cmd"] == f"python -m stages.{stage}"
