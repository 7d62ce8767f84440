"""Cut every kept recording into segments of data.seconds at data.fs: the store data/segments.

Nothing is filtered or normalised; a recording at another rate is resampled (data.resample). May be
interrupted and run again. Needs the manifest stage.
"""

import logging
from pathlib import Path

from ecg_core.manifest import read_manifest
from ecg_core.params import read_section
from ecg_core.records.preprocess import build_segments, state_folder
from ecg_core.records.raw import DataParams, raw_folder
from ecg_core.segments import open_segments
from stages.command import run_stage

MANIFEST = Path("data/manifest/manifest.csv")
OUT = Path("data/segments")


def main() -> None:
    """Build the store."""
    params = read_section("data", DataParams)
    manifest = read_manifest(MANIFEST)
    build_segments(manifest, raw_folder(), OUT, state_folder(MANIFEST, params), params)
    n_segments = len(open_segments(OUT))
    logging.getLogger(__name__).info("%d segments of %d records", n_segments, len(manifest))


if __name__ == "__main__":
    run_stage(main, __doc__)
