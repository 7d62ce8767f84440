"""PhysioNet's archives by their published numbers, as a manifest that the pipeline can divide."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ecg_core.manifest import MANIFEST_COLUMNS, PTBXL_PATIENT, RECORDING_PATIENT

RECORDINGS = {
    "cpsc_2018": 6_877,
    "cpsc_2018_extra": 3_453,
    "georgia": 10_344,
    "ptb-xl": 21_837,
    "chapman_shaoxing": 10_247,
    "ningbo": 34_905,
    "ptb": 516,
    "st_petersburg_incart": 74,
}
"""Recordings of challenge-2021/1.0.3 by source (PhysioNet's page of the Challenge): 88 253."""

PTBXL_RECORDINGS, PTBXL_PATIENTS = 21_799, 18_869
"""Of ptb-xl/1.0.3 (PhysioNet's page of it): the recordings of the Challenge's source once more."""

OTHER_RATES_SAMPLES = {"ptb": 115_174, "st_petersburg_incart": 462_600}
"""Samples a recording of the sources at 1000 Hz (the embedded one) and 257 Hz (30 minutes)."""


def made_up_manifest(
    recordings: Mapping[str, int],
    n_samples: Mapping[str, np.ndarray],
    patients: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Return a manifest of so many recordings a source, at 500 Hz, with no signal in common.

    Lengths are those of `n_samples` in turn. Of a source in `patients` only so many patients are
    behind the recordings: each recording beyond their number is another patient's second.
    """
    known = patients or {}
    return pd.concat(
        [
            _of_source(source, count, n_samples[source], known.get(source))
            for source, count in recordings.items()
        ],
        ignore_index=True,
    )


def _of_source(
    source: str, count: int, n_samples: np.ndarray, patients: int | None
) -> pd.DataFrame:
    names = [f"{source[:2].upper()}{number:08d}" for number in range(count)]
    table = pd.DataFrame(dict.fromkeys(MANIFEST_COLUMNS, ""), index=range(count))
    people = [number % (patients or count) for number in range(count)]
    return table.assign(
        source=source,
        record_id=names,
        dataset="challenge-2021/1.0.3",
        path=[f"challenge-2021/1.0.3/training/{source}/g1/{name}" for name in names],
        fs=500.0,
        n_samples=np.resize(n_samples, count),
        suffix="mat",
        leads="I II III aVR aVL aVF V1 V2 V3 V4 V5 V6",
        gains=" ".join(["1000"] * 12),
        age=60.0,
        classes="426783006",
        patient=[f"{source}:{person:08d}" for person in people],
        patient_kind=RECORDING_PATIENT if patients is None else PTBXL_PATIENT,
        ecg_id=pd.array(range(count), "Int64"),
        fold=pd.array([None] * count, "Int64"),
        checksums=" ".join(["-12345"] * 12),
        sha256=[f"{source}{number:056d}"[-64:] for number in range(count)],
    )
