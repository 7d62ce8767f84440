"""Which files of ours a module needs: its imports, theirs, and the data files beside them."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ("ecg_core", "stages")
DATA_FILE = re.compile(r'with_name\("([^"]+)"\)')
"""How a module names a data file that lies beside it."""


def module_file(name: str) -> Path | None:
    """Return the file of one of our modules, relative to the root; None for others."""
    path = Path(*name.split("."))
    if path.parts[0] not in OURS:
        return None
    if (ROOT / path).with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return None


def imported_modules(file: Path) -> set[Path]:
    """Return our files that a file imports, anywhere in it."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {path for name in names if (path := module_file(name)) is not None}
    return found


def needed_files(file: Path, without: frozenset[Path] = frozenset()) -> set[Path]:
    """Return a file and everything of ours that it needs, except what only `without` needs."""
    needed: set[Path] = set()
    waiting = [file]
    while waiting:
        current = waiting.pop()
        if current in needed or current in without:
            continue
        needed.add(current)
        waiting += imported_modules(current)
        for name in DATA_FILE.findall((ROOT / current).read_text()):
            if (ROOT / current).with_name(name).is_file():
                needed.add(current.with_name(name))
    return needed
