"""Which recordings and segments a part of the split has."""

import pandas as pd
import pytest

from ecg_core.metrics.parts import BadPart, read_part


def split_of(*rows: tuple[str, str, int, str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["source", "record_id", "segment", "finetune"])
    return table.assign(patient=table["record_id"])


SPLIT = split_of(
    ("b", "R2", 1, "test"), ("b", "R2", 0, "test"), ("a", "R1", 0, "test"), ("a", "R0", 0, "train")
)
MANIFEST = pd.DataFrame(
    {"source": ["a", "a", "b"], "record_id": ["R0", "R1", "R2"], "classes": ["", "", "426783006"]}
)
INDEX = SPLIT[["source", "record_id", "segment"]].iloc[::-1].reset_index(drop=True)


def test_a_part_names_recordings_in_order_with_their_segments_in_the_store() -> None:
    part = read_part(SPLIT, "finetune", MANIFEST, INDEX, "test")
    assert part.recordings["record_id"].tolist() == ["R1", "R2"]
    assert part.labels.sum(axis=1).tolist() == [0, 1]
    assert part.recording.tolist() == [0, 1, 1]
    assert part.segment.tolist() == [0, 0, 1]
    assert part.rows.tolist() == [1, 2, 3]


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(BadPart, match="expected segments with finetune 'valid', found none"):
        read_part(SPLIT, "finetune", MANIFEST, INDEX, "valid")


def test_a_segment_that_the_store_lacks_is_refused_by_name() -> None:
    with pytest.raises(BadPart, match="in the store, found no b/R2"):
        read_part(SPLIT, "finetune", MANIFEST, INDEX.drop(index=3), "test")


def test_a_recording_that_the_manifest_lacks_is_refused_by_name() -> None:
    with pytest.raises(BadPart, match="in the manifest, found no a/R1"):
        read_part(SPLIT, "finetune", MANIFEST.drop(index=1), INDEX, "test")
