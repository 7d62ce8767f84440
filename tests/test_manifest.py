"""The tables between the offline and the online side."""

import numpy as np
import pandas as pd
import pytest

from ecg_core.classes import CLASSES
from ecg_core.manifest import (
    BadManifest,
    Finding,
    Reason,
    RefusedRecord,
    label_matrix,
    read_manifest,
)
from ecg_core.splits import SPLIT_COLUMNS, BadSplit, read_split, write_split


def test_findings_are_sorted_into_the_order_of_the_reasons():
    refused = RefusedRecord(
        [Finding(reason, "x", "y") for reason in (Reason.SHORT, Reason.HEADER, Reason.GAIN)]
    )
    assert [f.reason for f in refused.findings] == [Reason.HEADER, Reason.GAIN, Reason.SHORT]


def test_labels_have_a_column_for_every_scored_class():
    manifest = pd.DataFrame({"classes": [f"{CLASSES[0]} {CLASSES[25]}", "", CLASSES[3]]})
    labels = label_matrix(manifest)
    assert labels.shape == (3, 26)
    assert [np.flatnonzero(row).tolist() for row in labels] == [[0, 25], [], [3]]


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "<html>\n"])
def test_a_table_that_is_no_manifest_is_refused(tmp_path, text):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(BadManifest, match="expected columns source"):
        read_manifest(tmp_path / "m.csv")
    with pytest.raises(BadSplit, match="expected columns source"):
        read_split(tmp_path / "m.csv")


def test_the_command_that_makes_a_missing_table_is_named(tmp_path):
    with pytest.raises(BadManifest, match=r"stages\.manifest"):
        read_manifest(tmp_path / "m.csv")
    with pytest.raises(BadSplit, match=r"stages\.split"):
        read_split(tmp_path / "m.csv")


def test_a_split_survives_its_file(tmp_path):
    split = pd.DataFrame(
        [["a", "007", 1, "a/007", 1, "", "train"], ["b", "1", 0, "p", 0, "test", ""]],
        columns=list(SPLIT_COLUMNS),
    )
    write_split(tmp_path / "s.csv", split)
    read = read_split(tmp_path / "s.csv")
    assert read.to_numpy().tolist() == split.to_numpy().tolist()
    assert not (tmp_path / "s.csv.tmp").exists()
