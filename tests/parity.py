"""Replay the original's numbers through this project's own classes.

    python tests/parity.py DIR

DIR holds fixtures made with the public code (fairseq-signals), by the names of tests/golden:
c1_forward_*, c2_*, c3_*, c4_*, c5_*, c7_*. Every one is replayed and a table tells the largest
error of each quantity. What several fixtures share (tiny_*: weights, inputs, configurations) is
taken from tests/golden where DIR has none. Exit status: 0 all within tolerance, 1 anything out,
not replayable, or nothing there.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from ecg_core.manifest import RefusedRecord
from ecg_core.refusal import Refusal
from tests.replay.classifier import replay_classifier
from tests.replay.comparison import Comparison, Row
from tests.replay.fixtures import CannotReplay, Fixtures
from tests.replay.forward import replay_forward
from tests.replay.pretraining import replay_pass
from tests.replay.records import replay_records
from tests.replay.scores import replay_scores
from tests.replay.trajectories import replay_finetuning, replay_pretraining

Replay = Callable[[str, Fixtures, Comparison], None]

REPLAYS: dict[str, Replay] = {
    "c1_forward_": replay_forward,
    "c2_": replay_pass,
    "c3_": replay_classifier,
    "c4_pretrain_": replay_pretraining,
    "c4_finetune_": replay_finetuning,
    "c5_": replay_scores,
    "c7_": replay_records,
}
SHARED = ("c3_classifier_state_dict",)


def find_fixtures(folder: Path) -> list[tuple[str, Replay]]:
    """Return every fixture's name without its suffix, and what replays it."""
    stems = sorted({path.stem for path in folder.glob("c*") if path.suffix in (".npz", ".json")})
    return [
        (stem, replay)
        for stem in stems
        for prefix, replay in REPLAYS.items()
        if stem.startswith(prefix) and stem not in SHARED
    ]


def replay_all(folder: Path, say: Callable[[str], None] = lambda stem: None) -> list[Comparison]:
    """Replay every fixture of a folder; what cannot be replayed is a row that failed."""
    fixtures, tables = Fixtures(folder), []
    for stem, replay in find_fixtures(folder):
        say(stem)
        table = Comparison(stem)
        try:
            replay(stem, fixtures, table)
        except (CannotReplay, Refusal, RefusedRecord) as reason:
            table.fail("replay", " ".join(str(reason).split()))
        except (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, SyntaxError,
                TypeError, ValueError) as error:  # fmt: skip
            table.fail("replay", f"{type(error).__name__}: {' '.join(str(error).split())}")
        if not table.rows:
            table.fail("replay", "expected something to compare, found nothing")
        tables.append(table)
    return tables


def shown(rows: Iterable[Row], everything: bool) -> list[Row]:
    """Return the rows to print: of each group its worst, with the number of its rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        key = row.quantity if everything or not row.group else "group " + row.group
        groups.setdefault(key, []).append(row)
    chosen = []
    for members in groups.values():
        worst = max(members, key=lambda row: (not row.ok, row.share))
        name = worst.quantity
        if len(members) > 1:
            name = f"{worst.group} ({len(members)}; worst: {worst.quantity})"
        chosen.append(Row(worst.fixture, name, *list(vars(worst).values())[2:]))
        chosen += [row for row in members if not row.ok and row is not worst]
    return chosen


def print_table(tables: list[Comparison], everything: bool) -> None:
    """Print a line a row, and what nothing was held against."""
    rows = [row for table in tables for row in shown(table.rows, everything)]
    width = max(len(row.fixture) for row in rows)
    head = f"{'abs. error':>10} {'rel. error':>10}  {'tolerance':<11} ok    quantity"
    print(f"{'fixture':{width}}  {head}")
    for row in rows:
        told = "ok " if row.ok else "OUT"
        print(
            f"{row.fixture:{width}}  {row.absolute:10.2e} {row.relative:10.2e}  "
            f"{row.tolerance:<11} {told}   {row.quantity}"
        )
    for table in tables:
        for what in table.not_compared:
            print(f"not compared: {what}")


def main() -> int:
    """Replay a folder and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder of fixtures")
    parser.add_argument("--all", action="store_true", help="a line for every parameter and update")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    asked = parser.parse_args()
    if not asked.folder.is_dir() or not find_fixtures(asked.folder):
        kinds = ", ".join(f"{prefix}*" for prefix in REPLAYS)
        print(f"error: {asked.folder}: expected fixtures ({kinds}), found none", file=sys.stderr)
        return 1
    torch.set_num_threads(asked.threads)
    tables = replay_all(asked.folder, lambda stem: print(f"replaying {stem}", file=sys.stderr))
    print_table(tables, asked.all)
    rows = [row for table in tables for row in table.rows]
    out = [row for row in rows if not row.ok]
    fixtures = f"{len(tables)} fixtures, {len(rows)} comparisons"
    print(f"{fixtures}: {f'{len(out)} out of tolerance' if out else 'all within tolerance'}")
    return 1 if out else 0


if __name__ == "__main__":
    sys.exit(main())
