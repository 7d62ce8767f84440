"""The manifest as a whole: order, twins, duplicates, patients, counts."""

import json

import pandas as pd
import pytest

from ecg_core.manifest import MANIFEST_COLUMNS, label_matrix, read_manifest, write_manifest
from ecg_core.records.collect import collect
from ecg_core.records.counts import TooManyRefused, manifest_counts, refused_table, require_enough
from ecg_core.records.raw import BadRawFiles
from tests.records.examples import (
    GEORGIA,
    PTBXL,
    params,
    signal,
    sums_of,
    write_listings,
    write_ptbxl_table,
    write_record,
)

TRAINING = "challenge-2021/1.0.3/training"
HR = f"{TRAINING}/ptb-xl/g1"
LOW = "ptb-xl/1.0.3/records100/00000"


def _collect(raw, **changes):
    return collect(raw, sums_of(raw), params(**changes))


def _names(table):
    return [
        f"{source}/{name}" for source, name in zip(table["source"], table["record_id"], strict=True)
    ]


def test_rows_are_sorted_by_source_and_name_whatever_the_listing_says(tmp_path):
    for seed, name in enumerate(["E3", "E1", "E2"]):
        write_record(tmp_path, GEORGIA, name, signal(seed))
    write_record(tmp_path, f"{TRAINING}/cpsc_2018/g1", "A1", signal(9))
    sums = sums_of(tmp_path)
    forward = collect(tmp_path, sums, params())
    backward = collect(tmp_path, dict(reversed(sums.items())), params())
    assert _names(forward.manifest) == ["cpsc_2018/A1", "georgia/E1", "georgia/E2", "georgia/E3"]
    pd.testing.assert_frame_equal(forward.manifest, backward.manifest)


def test_several_processes_find_what_one_finds(tmp_path):
    for seed in range(210):
        write_record(tmp_path, GEORGIA, f"E{seed:03}", signal(seed % 200, 2500))
    one, three = _collect(tmp_path), _collect(tmp_path, workers=3)
    pd.testing.assert_frame_equal(one.manifest, three.manifest)
    pd.testing.assert_frame_equal(one.refused, three.refused)
    assert len(one.refused) == 10


def test_a_manifest_survives_its_file(tmp_path):
    write_record(tmp_path, GEORGIA, "007", signal(1), dx="")
    write_record(tmp_path, GEORGIA, "E1", signal(2), dx="426783006,59118001")
    manifest = _collect(tmp_path).manifest
    write_manifest(tmp_path / "m.csv", manifest)
    assert list(manifest.columns) == list(MANIFEST_COLUMNS)
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "m.csv"), manifest)
    assert label_matrix(manifest).sum(axis=1).tolist() == [0, 2]


def test_the_first_of_two_records_with_one_signal_is_kept(tmp_path):
    write_record(tmp_path, GEORGIA, "E2", signal(1))
    write_record(tmp_path, GEORGIA, "E1", signal(1))
    collected = _collect(tmp_path)
    assert _names(collected.manifest) == ["georgia/E1"]
    assert collected.refused["reason"].tolist() == ["same signal already taken"]
    assert collected.refused["found"].tolist() == ["that of georgia/E1"]


def test_a_refused_record_takes_no_signal_from_another(tmp_path):
    write_record(tmp_path, GEORGIA, "E1", signal(1), gain="4880/mV")
    write_record(tmp_path, GEORGIA, "E2", signal(1))
    assert _names(_collect(tmp_path).manifest) == ["georgia/E2"]


def test_a_name_that_appears_twice_in_a_source_is_kept_once(tmp_path):
    write_record(tmp_path, GEORGIA, "E1", signal(1))
    write_record(tmp_path, GEORGIA.replace("g1", "g2"), "E1", signal(2))
    collected = _collect(tmp_path)
    assert collected.manifest["path"].tolist() == [f"{GEORGIA}/E1"]
    assert len(collected.refused) == 1


def _twins(raw, same_signal=True):
    write_record(raw, HR, "HR00007", signal(7))
    write_record(raw, PTBXL, "00007_hr", signal(7 if same_signal else 8), "dat", dx="")
    write_ptbxl_table(raw, [(7, 1234, 9)])


@pytest.mark.parametrize("same_signal", [True, False])
def test_of_twins_the_one_whose_tree_comes_first_is_taken(tmp_path, same_signal):
    _twins(tmp_path, same_signal)
    trees = ("challenge-2021/1.0.3", "ptb-xl/1.0.3")
    challenge, own = _collect(tmp_path), _collect(tmp_path, datasets=trees[::-1])
    assert _names(challenge.manifest) == ["ptb-xl/HR00007"]
    assert _names(own.manifest) == ["ptb-xl-database/00007_hr"]
    for collected in (challenge, own):
        assert collected.manifest["patient"].tolist() == ["ptb-xl/patient/1234"]
        assert collected.manifest["patient_kind"].tolist() == ["ptb-xl patient_id"]
        assert collected.manifest["fold"].tolist() == [9]
        assert collected.refused["reason"].tolist() == ["same signal already taken"]


def test_a_twin_is_counted_but_is_no_defect(tmp_path):
    _twins(tmp_path)
    collected = _collect(tmp_path)
    assert (collected.twins, collected.refused_fraction()) == (1, 0.0)
    require_enough(collected, 0.0)


def test_where_one_twin_is_damaged_the_other_is_taken(tmp_path):
    _twins(tmp_path)
    (tmp_path / HR / "HR00007.mat").unlink()
    collected = _collect(tmp_path)
    assert _names(collected.manifest) == ["ptb-xl-database/00007_hr"]
    assert collected.refused_fraction() == 0.5


def test_without_the_table_a_recording_of_ptbxl_stands_for_itself(tmp_path):
    write_record(tmp_path, HR, "HR00007", signal(7))
    manifest = _collect(tmp_path).manifest
    assert manifest["patient"].tolist() == ["ptb-xl/HR00007"]
    assert manifest["patient_kind"].tolist() == ["recording"]
    assert manifest["ecg_id"].tolist() == [7]


def test_a_patient_missing_from_the_table_is_not_made_up(tmp_path):
    write_record(tmp_path, HR, "HR00007", signal(7))
    write_record(tmp_path, HR, "HR00008", signal(8))
    write_ptbxl_table(tmp_path, [(7, "", 3)])
    assert _collect(tmp_path).manifest["patient_kind"].tolist() == ["recording", "recording"]


def test_recordings_of_one_patient_have_one_key_in_both_trees(tmp_path):
    write_record(tmp_path, HR, "HR00007", signal(7))
    write_record(tmp_path, PTBXL, "00009_hr", signal(9), "dat")
    write_ptbxl_table(tmp_path, [(7, "15709.0", 3), (9, 15709, 3)])
    assert _collect(tmp_path).manifest["patient"].tolist() == ["ptb-xl/patient/15709"] * 2


def test_a_table_that_was_changed_since_the_download_is_refused(tmp_path):
    _twins(tmp_path)
    sums = sums_of(tmp_path)
    write_ptbxl_table(tmp_path, [(7, 99, 9)])
    with pytest.raises(BadRawFiles, match=r"ptbxl_database\.csv.*stages\.download"):
        collect(tmp_path, sums, params())


def test_versions_of_ptbxl_that_are_not_used_are_written_down_and_not_refused(tmp_path):
    write_record(tmp_path, PTBXL, "00001_hr", signal(1), "dat")
    write_record(tmp_path, LOW, "00001_lr", signal(1, 1000), "dat", fs=100)
    write_record(tmp_path, LOW, "00002_lr", signal(2, 1000), "dat", fs=100)
    write_listings(tmp_path)
    sums = {name: sha for name, sha in sums_of(tmp_path).items() if "_lr." not in name}
    collected = collect(tmp_path, sums, params())
    assert _names(collected.manifest) == ["ptb-xl-database/00001_hr"]
    assert collected.refused.empty
    assert dict(zip(collected.unused["record_id"], collected.unused["why"], strict=True)) == {
        "00001_lr": "there is a 500 Hz version",
        "00002_lr": "data.resample is false",
    }


def test_age_and_sex_come_from_the_table_where_the_header_has_none(tmp_path):
    stem = write_record(tmp_path, PTBXL, "00001_hr", signal(1), "dat")
    lines = [line for line in stem.with_suffix(".hea").read_text().split("\n") if "#" not in line]
    stem.with_suffix(".hea").write_text("\n".join(lines))
    write_ptbxl_table(tmp_path, [(1, 5, 3)])
    manifest = _collect(tmp_path).manifest
    assert (manifest["age"].tolist(), manifest["sex"].tolist()) == ([61.0], ["female"])


def test_too_many_refusals_stop_the_run_with_the_table(tmp_path):
    write_record(tmp_path, GEORGIA, "E1", signal(1))
    write_record(tmp_path, GEORGIA, "E2", signal(2), gain="4880/mV")
    collected = _collect(tmp_path)
    require_enough(collected, 0.5)
    with pytest.raises(TooManyRefused) as stopped:
        require_enough(collected, 0.49)
    assert "wrong gain" in str(stopped.value)
    assert "georgia" in str(stopped.value)
    assert "4880" in str(stopped.value)


def test_nothing_kept_stops_the_run(tmp_path):
    write_record(tmp_path, GEORGIA, "E2", signal(2), gain="4880/mV")
    with pytest.raises(TooManyRefused):
        require_enough(_collect(tmp_path), 1.0)


def test_every_record_is_counted_once(tmp_path):
    _twins(tmp_path)
    write_record(tmp_path, GEORGIA, "E1", signal(1), dx="")
    write_record(tmp_path, GEORGIA, "E2", signal(2), gain="4880/mV")
    write_record(tmp_path, GEORGIA, "E3", signal(3), dx="AF", gain="4880/mV")
    collected = _collect(tmp_path)
    counts = manifest_counts(collected)
    assert counts["records"] == counts["kept"] + counts["refused"] == 5
    assert counts["kept_by_source"] == {"georgia": 1, "ptb-xl": 1}
    assert counts["refused_by_source"] == {
        "georgia": {"wrong gain": 2},
        "ptb-xl-database": {"same signal already taken": 1},
    }
    assert counts["without_diagnosis"] == {"georgia": 1}
    assert counts["patient_kinds"] == {"ptb-xl patient_id": 1, "recording": 1}
    reasons = collected.refused.set_index("record_id")["reasons"]
    assert reasons["E3"] == "wrong gain; diagnoses not SNOMED codes"
    assert json.loads(json.dumps(counts)) == counts
    assert "wrong gain" in refused_table(collected)
