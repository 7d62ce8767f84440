"""Named experiments: overlays of params.yaml, expanded to `dvc exp run -n ... -S ...`.

An overlay is a small YAML file in this folder with only the keys that differ; of several the later
one wins, and SET wins over all. Meant to be called by make: `make exp`, `make params`, `make diff`.
"""

import argparse
import hashlib
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from ecg_core.dotted import flatten
from ecg_core.params import PARAMS_FILE, BadParams, read_yaml
from ecg_core.refusal import Refusal
from experiments.compare import experiments_in_git, mean_and_spread

FOLDER = Path(__file__).parent
MISSING_IDENTITY = """\
git does not know who you are, and DVC keeps an experiment as a git commit. Set, once:
  git config user.name "Your Name"
  git config user.email you@example.org"""


def overlay_values(names: Sequence[str]) -> dict[str, Any]:
    """Return the overlays' values by dotted key; raise BadParams for an unknown name or key."""
    known = flatten(read_yaml())
    values: dict[str, Any] = {}
    for name in names:
        path = FOLDER / f"{name}.yaml"
        if not path.is_file():
            there = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
            raise BadParams(f"experiments: expected one of {there}, found {name!r}")
        overlay = flatten(read_yaml(path))
        unknown = [key for key in overlay if key not in known]
        if unknown:
            raise BadParams(f"{path}: not in {PARAMS_FILE}: {', '.join(unknown)}")
        values.update(overlay)
    return values


def flags(values: dict[str, Any]) -> list[str]:
    """Return what `dvc exp run` is told: -S key=value, key by key."""
    return [word for key, value in values.items() for word in ("-S", f"{key}={in_words(value)}")]


def in_words(value: Any) -> str:
    """Write a value as the right-hand side of -S."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list():
            return "[" + ",".join(in_words(part) for part in value) + "]"
        case str() if not re.fullmatch(r"[\w./:-]+", value):
            return "'" + value.replace("'", r"\'") + "'"
        case _:
            return str(value)


def experiment_name(names: Sequence[str], extra: Sequence[str]) -> str:
    """Return a name that git takes: the overlays', and a digest of what SET adds."""
    digest = hashlib.sha256(" ".join(extra).encode()).hexdigest()[:6]
    return "-".join([*(name.replace("_", "-") for name in names), *([digest] if extra else [])])


def run_experiments(names: Sequence[str], extra: Sequence[str], seeds: Sequence[int]) -> None:
    """Run one experiment, or one a seed, leaving out those that are finished."""
    if not all(_git("config", key) for key in ("user.name", "user.email")):
        raise Refusal(MISSING_IDENTITY)
    expanded = [*flags(overlay_values(names)), *extra]
    base = experiment_name(names, extra)
    if not base:
        raise Refusal('expected NAME="overlay ..." or SET="-S key=value", found neither')
    wanted = {base: expanded}
    if seeds:
        wanted = {f"{base}-seed{n}": [*expanded, "-S", f"common.seed={n}"] for n in seeds}
    finished = experiments_in_git()
    for name, words in wanted.items():
        if name in finished:
            print(f"{name}: finished before; `dvc exp remove {name}` and it runs again")
            continue
        command = ["dvc", "exp", "run", "--temp", "-n", name, *words]
        print("+", shlex.join(command), flush=True)
        subprocess.run(command, check=True)
    if seeds:
        print(mean_and_spread(list(wanted)))
    print("`dvc exp show` lists it, `make compare` draws it, `dvc exp apply NAME` brings it here.")


def write_params(names: Sequence[str]) -> None:
    """Write overlays into params.yaml, comments and all the rest as they are."""
    values = overlay_values(names)
    yaml = YAML()
    yaml.representer.add_representer(type(None), _null)
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    tree = yaml.load(PARAMS_FILE)
    for key, value in values.items():
        *sections, leaf = key.split(".")
        place = tree
        for section in sections:
            place = place[section]
        if value != place[leaf]:
            place[leaf] = _in_one_line(value)
    beside = PARAMS_FILE.with_suffix(".tmp")
    with beside.open("w") as file:
        yaml.dump(tree, file)
    beside.replace(PARAMS_FILE)


def _null(representer: RoundTripRepresenter, _: None) -> ScalarNode:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _in_one_line(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    line = YAML().seq(_in_one_line(part) for part in value)
    line.fa.set_flow_style()
    return line


def differences(first: Sequence[str], second: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (key, in the first, in the second) wherever two sets of overlays differ."""
    base = flatten(read_yaml())
    one, two = base | overlay_values(first), base | overlay_values(second)
    return [(key, in_words(one[key]), in_words(two[key])) for key in one if one[key] != two[key]]


def print_differences(first: Sequence[str], second: Sequence[str]) -> None:
    """Print the differing parameters as a table."""
    titles = ("parameter", " ".join(first) or "params.yaml", " ".join(second) or "params.yaml")
    rows = [titles, *differences(first, second)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _git(*words: str) -> str:
    answer = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def main(arguments: Sequence[str]) -> None:
    """Read the command line that make writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    exp = commands.add_parser("exp", help="run overlays as a DVC experiment")
    exp.add_argument("--name", default="")
    exp.add_argument("--set", default="")
    exp.add_argument("--seeds", default="")
    params = commands.add_parser("params", help="write overlays into params.yaml")
    params.add_argument("--name", default="")
    diff = commands.add_parser("diff", help="print where two sets of overlays differ")
    diff.add_argument("--first", default="")
    diff.add_argument("--second", default="")
    given = parser.parse_args(arguments)
    if given.command == "exp":
        seeds = [int(seed) for seed in given.seeds.split()]
        run_experiments(given.name.split(), shlex.split(given.set), seeds)
    elif given.command == "params":
        write_params(given.name.split())
    else:
        print_differences(given.first.split(), given.second.split())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refusal as refusal:
        sys.exit(f"error: {refusal}")
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.returncode)
