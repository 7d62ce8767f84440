"""One part of the split, ready to be scored."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from ecg_core.manifest import label_matrix
from ecg_core.metrics.evaluation import Predictions
from ecg_core.refusal import Refusal
from ecg_core.splits import IDENTIFY_PARTS


class BadPart(Refusal):
    """A part of the split cannot be evaluated."""


@dataclass(frozen=True)
class Part:
    """The recordings of one part of the split, and where their segments are in the store."""

    recordings: pd.DataFrame
    """source, record_id, patient: one row a recording, sorted."""
    labels: Bool[np.ndarray, "recording label"]
    recording: Int[np.ndarray, " segment"]
    segment: Int[np.ndarray, " segment"]
    rows: Int[np.ndarray, " segment"]

    @property
    def patients(self) -> Int[np.ndarray, " recording"]:
        """Each recording's patient, counted from 0 without gaps in the order of their keys."""
        return np.asarray(pd.factorize(self.recordings["patient"], sort=True)[0])

    @property
    def n_patients(self) -> int:
        """How many patients there are."""
        return self.recordings["patient"].nunique()

    def predictions(self, logits: Float[np.ndarray, "segment label"]) -> Predictions:
        """Return what a model said about this part."""
        return Predictions(self.recordings, self.labels, self.recording, self.segment, logits)


def read_part(
    split: pd.DataFrame, column: str, manifest: pd.DataFrame, index: pd.DataFrame, name: str
) -> Part:
    """Return the part `name` of a column of the split; `index` is the store's.

    Raises BadPart when the part is empty, or the manifest or the store lacks one of its segments.
    """
    chosen = split[split[column] == name]
    if chosen.empty:
        raise BadPart(f"split.csv: expected segments with {column} {name!r}, found none")
    key = ["source", "record_id"]
    chosen = chosen.sort_values([*key, "segment"], kind="stable")
    places = index[[*key, "segment"]].assign(row=np.arange(len(index)))
    found = chosen.merge(places, how="left", on=[*key, "segment"], validate="one_to_one")
    recordings = chosen.drop_duplicates(key)[[*key, "patient"]].reset_index(drop=True)
    known = recordings.merge(manifest[[*key, "classes"]], how="left", on=key, validate="one_to_one")
    for table, lacks, where in ((found, "row", "store"), (known, "classes", "manifest")):
        missing = table[table[lacks].isna()]
        if len(missing):
            first = "/".join(missing.iloc[0][key])
            raise BadPart(f"expected every {name} segment in the {where}, found no {first}")
    recording = chosen.groupby(key, sort=False).ngroup().to_numpy()
    return Part(
        recordings=recordings,
        labels=label_matrix(known),
        recording=recording,
        segment=chosen["segment"].to_numpy(),
        rows=found["row"].to_numpy(np.int64),
    )


def held_out_parts(
    split: pd.DataFrame, manifest: pd.DataFrame, index: pd.DataFrame
) -> tuple[Part, Part]:
    """Return finetuning's valid and test."""
    valid, test = (
        read_part(split, "finetune", manifest, index, name) for name in ("valid", "test")
    )
    return valid, test


def identify_parts(
    split: pd.DataFrame, manifest: pd.DataFrame, index: pd.DataFrame
) -> tuple[Part, Part, Part]:
    """Return identification's train, gallery and probe."""
    train, gallery, probe = (
        read_part(split, "identify", manifest, index, name) for name in IDENTIFY_PARTS
    )
    return train, gallery, probe
