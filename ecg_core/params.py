"""Read a section of params.yaml into a frozen model, or refuse it by key, expected and found."""

import copy
import difflib
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from ecg_core.refusal import Refusal

PARAMS_FILE = Path("params.yaml")


class BadParams(Refusal):
    """params.yaml, or another file of settings, cannot be used; the message says where and why."""


class Section(BaseModel):
    """One section of params.yaml: frozen, every key required, no other key allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=False)


SectionT = TypeVar("SectionT", bound=Section)


def read_yaml(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Read a YAML file with the parser that DVC uses, so that both see the same values.

    Raises BadParams when the file is missing, is not YAML, or is not a mapping.
    """
    if not path.is_file():
        raise BadParams(f"{path}: expected a file, found none (is this the project's folder?)")
    try:
        tree = _parse(path.read_bytes())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise BadParams(f"{path}{line}: expected YAML, found: {error.problem}") from error
    if not isinstance(tree, dict):
        raise BadParams(f"{path}: expected sections, found {type(tree).__name__}")
    return copy.deepcopy(tree)


@functools.lru_cache(maxsize=4)
def _parse(content: bytes) -> Any:
    """Parse YAML, the same content once: a stage reads ten sections of one file."""
    return YAML(typ="safe", pure=True).load(content)


def read_section(name: str, model: type[SectionT], path: Path = PARAMS_FILE) -> SectionT:
    """Return one section as the given model; raise BadParams with a line for every wrong key."""
    tree = read_yaml(path)
    if name not in tree:
        raise BadParams(f"{path}: expected a section {name!r}, found {', '.join(tree)}")
    return parse_section(name, tree[name], model, path)


def parse_section(name: str, values: Any, model: type[SectionT], path: Path) -> SectionT:
    """Return the values as the given model; raise BadParams with a line for every wrong key."""
    try:
        # strict JSON mode: no text is taken for a number, yet a list may become a tuple
        return model.model_validate_json(json.dumps(values))
    except ValidationError as error:
        lines = [_describe(path, name, model, dict(problem)) for problem in error.errors()]
        raise BadParams("\n".join(lines)) from None


def refuse_sections(sections: Mapping[str, type[Section]], path: Path = PARAMS_FILE) -> None:
    """Raise BadParams with every wrong section and key of the file, if there is any."""
    problems = [
        f"{path}: {name}: unknown section, expected one of {', '.join(sections)}"
        for name in read_yaml(path)
        if name not in sections
    ]
    for name, model in sections.items():
        try:
            read_section(name, model, path)
        except BadParams as refusal:
            problems.append(str(refusal))
    if problems:
        raise BadParams("\n".join(problems))


def _describe(path: Path, section: str, model: type[Section], problem: dict[str, Any]) -> str:
    where = [str(part) for part in problem["loc"]]
    # pydantic names the branch of a union after the key; a reader of the file knows only keys
    key = ".".join([section, *where[:1], *(part for part in where[1:] if part.isdigit())])
    if problem["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in model.model_fields.items()]
        close = difflib.get_close_matches(where[0], known, n=1)
        hint = f", expected {close[0]!r}?" if close else f", expected one of {', '.join(known)}"
        return f"{path}: {key}: unknown key{hint}"
    if problem["type"] == "missing":
        return f"{path}: {key}: expected a value, found no such key"
    schema = model.model_json_schema(by_alias=True).get("properties", {})
    expected = _expected(schema[where[0]]) if where and where[0] in schema else problem["msg"]
    if problem["type"] in ("value_error", "assertion_error"):
        expected = str(problem["msg"]).removeprefix("Value error, ").removeprefix("expected ")
    return f"{path}: {key}: expected {expected}, found {problem['input']!r}"


def _expected(schema: dict[str, Any]) -> str:
    """Put a JSON schema into words: 'an integer of at least 1', 'null or a list of numbers'."""
    if "anyOf" in schema:
        return " or ".join(_expected(option) for option in schema["anyOf"])
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(repr(value) for value in schema["enum"])
    if schema.get("type") == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})]
        return "a list of (" + ", ".join(_expected(item) for item in items) + ")"
    words = {
        "integer": "an integer",
        "number": "a number",
        "string": "a text",
        "boolean": "true or false",
        "null": "null",
    }
    limits = {
        "minimum": "of at least",
        "exclusiveMinimum": "greater than",
        "maximum": "of at most",
        "exclusiveMaximum": "less than",
    }
    bounds = [f"{word} {schema[key]}" for key, word in limits.items() if key in schema]
    kind = words.get(str(schema.get("type")), str(schema.get("type", "another value")))
    return " ".join([kind, " and ".join(bounds)]).strip()
