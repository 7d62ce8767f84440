"""Bring the raw files that data.datasets names from data.mirror, verified file by file.

They are kept in $ECG_DATA, else in data/raw; what is there already is verified, not fetched. May be
interrupted and run again. Writes data/checksums.txt: every verified file with its SHA-256.
"""

import logging
from pathlib import Path

from ecg_core.params import read_section
from ecg_core.records.download import download
from ecg_core.records.raw import DataParams, raw_folder, write_checksums
from stages.command import run_stage


def main() -> None:
    """Verify, fetch what is missing, and write down what is there."""
    raw = raw_folder()
    sums = download(raw, read_section("data", DataParams))
    write_checksums(Path("data/checksums.txt"), sums)
    logging.getLogger(__name__).info("%d files in %s match their sums", len(sums), raw)


if __name__ == "__main__":
    run_stage(main, __doc__)
