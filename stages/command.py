"""What every stage does around its own work: `--help`, log lines, and refusals in one message."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable

from ecg_core.refusal import Refusal


def run_stage(main: Callable[[], None], description: str | None) -> None:
    """Run a stage that takes no arguments; everything it needs stands in params.yaml."""
    argparse.ArgumentParser(
        description=description,
        epilog="Reads params.yaml in the current folder. `dvc repro` runs all stages in order.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    guarded(main)


def guarded(main: Callable[[], None]) -> None:
    """Call a stage's main function; print a refusal as it is and exit with status 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    try:
        main()
    except Refusal as refusal:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(3.0)  # where all processes are refused alike, the first one's word is enough
        sys.exit(f"error: {refusal}")
