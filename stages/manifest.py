"""Make the manifest: one row a record that is kept, one refusal with reasons a record that is not.

Writes data/manifest/manifest.csv, refused.csv and unused.csv, and counts them by source and reason
in reports/manifest/metrics.json. Needs the download stage.
"""

import logging
from pathlib import Path

from ecg_core.manifest import write_manifest, write_refused
from ecg_core.outputs import write_json
from ecg_core.params import read_section
from ecg_core.records.collect import collect
from ecg_core.records.counts import manifest_counts, refused_table, require_enough
from ecg_core.records.raw import DataParams, raw_folder, read_checksums, require_raw
from ecg_core.tables import write_csv
from stages.command import run_stage

OUT = Path("data/manifest")


def main() -> None:
    """Examine all verified records."""
    params = read_section("data", DataParams)
    sums = read_checksums(Path("data/checksums.txt"))
    raw = raw_folder()
    require_raw(raw, sums)
    (OUT / "manifest.csv").unlink(missing_ok=True)
    collected = collect(raw, sums, params)
    write_refused(OUT / "refused.csv", collected.refused)
    write_csv(OUT / "unused.csv", collected.unused)
    require_enough(collected, params.max_refused)
    write_manifest(OUT / "manifest.csv", collected.manifest)
    write_json(Path("reports/manifest/metrics.json"), {"manifest": manifest_counts(collected)})
    logging.getLogger(__name__).info("%s", refused_table(collected))


if __name__ == "__main__":
    run_stage(main, __doc__)
