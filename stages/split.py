"""Divide the segments: pretraining, finetuning's train, valid and test, and identification.

Writes data/split/split.csv (one row a segment), records.csv (one row a record, for others to reuse
as split.file) and, in reports/split/metrics.json, sizes and the leak report. Needs the manifest.
"""

import logging
from pathlib import Path

from ecg_core.manifest import read_manifest
from ecg_core.outputs import write_json
from ecg_core.params import read_section
from ecg_core.records.leaks import leak_report, require_no_leak, split_counts
from ecg_core.records.raw import DataParams
from ecg_core.records.split import SplitParams, require_parts, split_segments
from ecg_core.records.split_file import read_split_file, write_split_file
from ecg_core.segments import count_segments, list_segments
from ecg_core.splits import write_split
from stages.command import run_stage

OUT = Path("data/split")


def main() -> None:
    """Divide, look for leaks, and write."""
    data, params = read_section("data", DataParams), read_section("split", SplitParams)
    manifest = read_manifest(Path("data/manifest/manifest.csv"))
    segments = list_segments(count_segments(manifest, fs=data.fs, seconds=data.seconds))
    for stale in ("records.csv", "split.csv"):
        (OUT / stale).unlink(missing_ok=True)
    known = set(manifest["source"] + "/" + manifest["record_id"])
    listed = read_split_file(Path(params.file), known) if params.file else None
    split = split_segments(manifest, segments, params, listed)
    require_parts(split)
    leaks = leak_report(split, manifest)
    if params.unit != "segment":
        require_no_leak(leaks, except_pretraining=params.heldout_in_pretraining)
        write_split_file(OUT / "records.csv", split)
    write_split(OUT / "split.csv", split)
    counts = split_counts(split, leaks)
    write_json(Path("reports/split/metrics.json"), {"split": counts})
    logging.getLogger(__name__).info("%s", counts["parts"])


if __name__ == "__main__":
    run_stage(main, __doc__)
