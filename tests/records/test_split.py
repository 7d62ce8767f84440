"""The split and its leak report."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from ecg_core.manifest import PTBXL_PATIENT, RECORDING_PATIENT
from ecg_core.params import BadParams, parse_section
from ecg_core.records.leaks import leak_report, require_no_leak, split_counts
from ecg_core.records.split import SplitParams, part_of, require_parts, split_segments
from ecg_core.records.split_file import read_split_file, write_split_file
from ecg_core.segments import list_segments
from ecg_core.splits import BadSplit

BASE = {
    "unit": "patient",
    "file": None,
    "seed": 42,
    "valid_fraction": 0.2,
    "test_fraction": 0.2,
    "finetune_sources": ("cpsc_2018", "ptb-xl"),
    "pretrain_sources": ("cpsc_2018", "ptb-xl", "georgia", "ptb-xl-database"),
    "holdout_source": None,
    "ptbxl_folds": False,
    "heldout_in_pretraining": False,
    "exclude_identify_from_pretraining": False,
}


def _params(**changes):
    return SplitParams.model_validate({**BASE, **changes})


def _row(source, record_id, patient=None, ecg_id=None, fold=None):
    return {
        "source": source,
        "record_id": record_id,
        "patient": f"ptb-xl/patient/{patient}" if patient else f"{source}/{record_id}",
        "patient_kind": PTBXL_PATIENT if patient else RECORDING_PATIENT,
        "ecg_id": ecg_id,
        "fold": fold,
        "sha256": f"{source}/{record_id}",
    }


@pytest.fixture(scope="module")
def manifest():
    """200 recordings that stand for themselves, and 150 of 50 patients in PTB-XL's two trees."""
    rows = [_row("cpsc_2018", f"A{n:04}") for n in range(100)]
    rows += [_row("georgia", f"E{n:04}") for n in range(99)]
    rows += [_row("ptb", "S0001")]
    for n in range(150):
        fold, patient = n % 50 % 10 + 1, n % 50 + 1
        if n < 100:
            rows.append(_row("ptb-xl", f"HR{n:05}", patient, n, fold))
        else:
            rows.append(_row("ptb-xl-database", f"{n:05}_hr", patient, n, fold))
    table = pd.DataFrame(rows).sort_values(["source", "record_id"], ignore_index=True)
    return table.astype({"ecg_id": "Int64", "fold": "Int64"})


@pytest.fixture(scope="module")
def segments(manifest):
    counts = manifest[["source", "record_id"]].assign(segments=[n % 3 + 1 for n in range(350)])
    return list_segments(counts)


def _split(manifest, segments, listed=None, **changes):
    return split_segments(manifest, segments, _params(**changes), listed)


def _patients(split, part):
    return set(split.loc[split["finetune"] == part, "patient"])


def test_no_patient_is_in_two_parts(manifest, segments):
    split = _split(manifest, segments)
    train, valid, test = (_patients(split, part) for part in ("train", "valid", "test"))
    assert train
    assert valid
    assert test
    assert not train & valid
    assert not (train | valid) & test
    assert not set(split.loc[split["pretrain"] == 1, "patient"]) & (valid | test)


def test_pretraining_has_finetune_train_and_the_other_sources(manifest, segments):
    split = _split(manifest, segments)
    assert (split.loc[split["finetune"] == "train", "pretrain"] == 1).all()
    georgia = split[split["source"] == "georgia"]
    assert (georgia["pretrain"] == 1).all()
    assert (georgia["finetune"] == "").all()
    assert not (split["source"] == "ptb").any()


def test_rows_are_sorted_and_name_each_segment_once(manifest, segments):
    split = _split(manifest, segments)
    names = list(zip(split["source"], split["record_id"], split["segment"], strict=True))
    assert names == sorted(set(names))


def test_a_part_depends_on_nothing_but_key_and_seed(manifest, segments):
    split = _split(manifest, segments)
    half = manifest[manifest["source"] == "cpsc_2018"].iloc[::2].sample(frac=1, random_state=0)
    chosen = segments.merge(half[["source", "record_id"]], on=["source", "record_id"])
    alone = _split(half, chosen.sample(frac=1, random_state=1))
    both = alone.merge(split, on=["source", "record_id", "segment"])
    assert len(both) == len(alone)
    assert (both["finetune_x"] == both["finetune_y"]).all()
    other = _split(manifest, segments, seed=43)
    assert _patients(other, "test") != _patients(split, "test")


def test_the_hash_fills_the_parts_in_proportion():
    parts = pd.Series([part_of(f"patient {n}", 1, 0.1, 0.2) for n in range(20_000)])
    shares = parts.value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.2, abs=0.01)
    assert shares["valid"] == pytest.approx(0.1, abs=0.01)


def test_a_larger_test_part_keeps_the_smaller_one():
    keys = [f"patient {n}" for n in range(1000)]
    small = {key for key in keys if part_of(key, 1, 0.1, 0.1) == "test"}
    large = {key for key in keys if part_of(key, 1, 0.1, 0.3) == "test"}
    assert small < large


def test_the_hash_is_the_published_one():
    for key in ("georgia/E00001", "ptb-xl/patient/1", "ptb-xl/patient/7", "ningbo/JS20000"):
        text = f"str:split\x1fint:42\x1fstr:{key}"
        place = int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) / 2**64
        expected = "test" if place < 0.3 else "valid" if place < 0.6 else "train"
        assert part_of(key, 42, 0.3, 0.3) == expected


def test_split_by_segment_leaks_and_says_so(manifest, segments):
    split = _split(manifest, segments, unit="segment")
    leaks = leak_report(split, manifest)
    assert leaks["test"]["finetune_train"]["recording"] > 0
    assert leaks["test"]["pretrain"]["recording"] > 0
    held_out = split["finetune"].isin(["valid", "test"])
    assert (split.loc[held_out, "pretrain"] == 0).all()


def test_split_by_recording_keeps_recordings_whole_and_reports_patients(manifest, segments):
    split = _split(manifest, segments, unit="recording")
    leaks = leak_report(split, manifest)
    assert leaks["test"]["finetune_train"]["recording"] == 0
    assert leaks["test"]["finetune_train"]["patient"] > 0
    with pytest.raises(BadSplit, match="share a patient with finetune_train"):
        require_no_leak(leaks, except_pretraining=False)


def test_split_by_source_leaves_one_out(manifest, segments):
    split = _split(manifest, segments, unit="source", holdout_source="cpsc_2018")
    held_out = split["finetune"].isin(["valid", "test"])
    assert set(split.loc[held_out, "source"]) == {"cpsc_2018"}
    assert set(split.loc[split["finetune"] == "train", "source"]) == {"ptb-xl"}
    assert not (split.loc[split["pretrain"] == 1, "source"] == "cpsc_2018").any()
    require_no_leak(leak_report(split, manifest), except_pretraining=False)
    require_parts(split)


def test_a_source_left_out_that_shares_patients_takes_them_out_of_pretraining(manifest, segments):
    split = _split(manifest, segments, unit="source", holdout_source="ptb-xl")
    require_no_leak(leak_report(split, manifest), except_pretraining=False)


def test_the_folds_of_ptbxl_are_followed_where_they_are_known(manifest, segments):
    split = _split(manifest, segments, ptbxl_folds=True)
    split = split.merge(manifest[["source", "record_id", "fold"]], on=["source", "record_id"])
    own = split[split["source"] == "ptb-xl"]
    expected = own["fold"].map({9: "valid", 10: "test"}).fillna("train")
    assert (own["finetune"] == expected).all()
    assert set(split.loc[split["source"] == "cpsc_2018", "finetune"]) == {"train", "valid", "test"}
    require_no_leak(leak_report(split, manifest), except_pretraining=False)


def test_held_out_patients_are_pretrained_on_only_if_asked_for(manifest, segments):
    split = _split(manifest, segments, heldout_in_pretraining=True)
    leaks = leak_report(split, manifest)
    assert leaks["test"]["pretrain"]["signal"] == (split["finetune"] == "test").sum()
    require_no_leak(leaks, except_pretraining=True)
    with pytest.raises(BadSplit, match="share a signal with pretrain"):
        require_no_leak(leaks, except_pretraining=False)


def test_gallery_and_probe_are_a_patients_first_and_second_recording(manifest, segments):
    split = _split(manifest, segments)
    records = split.drop_duplicates(["source", "record_id"]).merge(manifest)
    for _, rows in records[records["patient_kind"] == PTBXL_PATIENT].groupby("patient"):
        parts = rows.sort_values("ecg_id")["identify"].tolist()
        assert parts[:2] == ["gallery", "probe"]
        assert set(parts[2:]) <= {""}
    tested = set(records.loc[records["identify"].isin(["gallery", "probe"]), "patient"])
    assert not tested & set(records.loc[records["identify"] == "train", "patient"])
    assert (records.loc[records["source"] == "georgia", "identify"] == "train").all()


def test_a_patient_with_one_recording_is_neither_gallery_nor_probe():
    manifest = pd.DataFrame(
        [_row("ptb-xl", "HR00001", 1, 1, 1), _row("cpsc_2018", "A1"), _row("georgia", "E1")]
    ).astype({"ecg_id": "Int64", "fold": "Int64"})
    segments = list_segments(manifest[["source", "record_id"]].assign(segments=1))
    assert set(_split(manifest, segments)["identify"]) == {"train"}


def test_patients_of_identification_can_be_kept_out_of_pretraining(manifest, segments):
    split = _split(manifest, segments, exclude_identify_from_pretraining=True)
    tested = split["identify"].isin(["gallery", "probe"])
    patients = set(split.loc[tested, "patient"])
    assert patients
    assert not patients & set(split.loc[split["pretrain"] == 1, "patient"])
    with_them = _split(manifest, segments)
    held_out = _patients(with_them, "valid") | _patients(with_them, "test")
    for found, expected in ((split, 0), (with_them, len(patients - held_out))):
        counts = split_counts(found, leak_report(found, manifest))
        shared = counts["identify_patients_shared"]
        assert shared == {"pretrain": expected, "identify_train": 0}


def _listed(**parts):
    return {part: set(parts.get(part, ())) for part in ("pretrain", "train", "valid", "test")}


def test_a_split_file_is_followed_to_the_letter(manifest, segments):
    listed = _listed(
        pretrain=["georgia/E0001", "cpsc_2018/A0001"],
        train=["cpsc_2018/A0001"],
        valid=["cpsc_2018/A0002"],
        test=["georgia/E0005"],
    )
    split = _split(manifest, segments, listed)
    found = split[(split["finetune"] != "") | (split["pretrain"] == 1)]
    names = found["source"] + "/" + found["record_id"]
    assert set(names[found["pretrain"] == 1]) == listed["pretrain"]
    for part in ("train", "valid", "test"):
        assert set(names[found["finetune"] == part]) == listed[part]


def test_without_a_list_for_pretraining_the_held_out_patients_stay_out_of_it(manifest, segments):
    listed = _listed(train=["cpsc_2018/A0001"], valid=["ptb-xl/HR00001"], test=["georgia/E0005"])
    split = _split(manifest, segments, listed)
    require_no_leak(leak_report(split, manifest), except_pretraining=False)
    assert (split["pretrain"] == 1).sum() > 300


def test_a_leak_in_a_split_file_is_found(manifest, segments):
    listed = _listed(train=["ptb-xl/HR00001"], valid=["cpsc_2018/A0002"], test=["ptb-xl/HR00051"])
    leaks = leak_report(_split(manifest, segments, listed), manifest)
    with pytest.raises(BadSplit, match="test segments share a patient with finetune_train"):
        require_no_leak(leaks, except_pretraining=False)


def test_a_shared_signal_is_a_leak_though_names_and_patients_differ(manifest, segments):
    same = manifest.assign(sha256="one signal")
    leaks = leak_report(_split(same, segments), same)
    assert leaks["valid"]["finetune_train"]["signal"] > 0
    assert leaks["valid"]["finetune_train"]["recording"] == 0


def test_what_is_written_is_read_again_as_the_same_split(tmp_path, manifest, segments):
    split = _split(manifest, segments, exclude_identify_from_pretraining=True)
    write_split_file(tmp_path / "r.csv", split)
    known = set(manifest["source"] + "/" + manifest["record_id"])
    again = _split(
        manifest,
        segments,
        read_split_file(tmp_path / "r.csv", known),
        exclude_identify_from_pretraining=True,
    )
    pd.testing.assert_frame_equal(again, split)


FILE = "part,source,record_id\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected columns part, source, record_id, found nothing"),
        ("part,record_id\n", "line 1: expected columns"),
        (FILE + "train,a,1\nlearn,a,1\n", "line 3: expected one of pretrain.*found learn"),
        (FILE + "train,a,1\ntest,b,9\n", "line 3: expected a record of the manifest, found b/9"),
        (FILE + "train,a,1\ntrain,a,1\n", "line 3: expected each record once in a part"),
        (FILE + "train,a,1\nfinetune_test,a,1\n", "line 3: expected a/1 in one part"),
        (FILE + "train,a\n", "line 2: expected a record"),
    ],
)
def test_a_bad_split_file_is_refused_with_its_line(tmp_path, text, message):
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(BadSplit, match=message):
        read_split_file(tmp_path / "f.csv", {"a/1", "a/2"})
    with pytest.raises(BadSplit, match=r"split\.file"):
        read_split_file(tmp_path / "none.csv", {"a/1"})


def test_a_record_may_be_pretrained_on_and_trained_on(tmp_path):
    (tmp_path / "f.csv").write_text(
        "part,source,record_id,segments\npretrain,a,1,2\nfinetune_train,a,1,2\nvalid,a,2,2\n"
    )
    listed = read_split_file(tmp_path / "f.csv", {"a/1", "a/2"})
    assert listed == {"pretrain": {"a/1"}, "train": {"a/1"}, "valid": {"a/2"}, "test": set()}


@pytest.mark.parametrize(
    "change",
    [
        {"unit": "patients"},
        {"valid_fraction": 0.6, "test_fraction": 0.6},
        {"finetune_sources": ["ptb-xl-database"]},
        {"unit": "source"},
        {"unit": "source", "holdout_source": "ptb-xl", "valid_fraction": 0, "test_fraction": 0},
        {"holdout_source": "georgia"},
        {"unit": "source", "holdout_source": "georgia"},
        {"unit": "segment", "ptbxl_folds": True},
        {"pretrain_sources": []},
        {"seed": "x"},
        {"colour": 1},
    ],
)
def test_parameters_that_do_not_fit_together_are_refused(change):
    with pytest.raises(BadParams, match="split"):
        parse_section("split", {**BASE, **change}, SplitParams, Path("params.yaml"))


def test_sources_that_are_not_there_are_refused_by_name(manifest, segments):
    with pytest.raises(BadSplit, match=r"split\.finetune_sources.*found chapman"):
        _split(manifest, segments, finetune_sources=("chapman",))
    with pytest.raises(BadSplit, match=r"split\.holdout_source.*found ningbo"):
        _split(
            manifest,
            segments,
            unit="source",
            holdout_source="ningbo",
            finetune_sources=("ningbo", "cpsc_2018"),
        )


def test_an_empty_part_is_refused_by_name(manifest, segments):
    with pytest.raises(BadSplit, match="none in test"):
        require_parts(_split(manifest, segments, test_fraction=0.0))


def test_the_metric_counts_segments_recordings_and_patients(manifest, segments):
    split = _split(manifest, segments)
    counts = split_counts(split, leak_report(split, manifest))["parts"]
    rows = split[split["finetune"] == "valid"]
    assert counts["finetune_valid"] == {
        "segments": len(rows),
        "recordings": len(set(rows["source"] + rows["record_id"])),
        "patients": rows["patient"].nunique(),
    }
    assert set(counts) == {
        "pretrain",
        "finetune_train",
        "finetune_valid",
        "finetune_test",
        "identify_train",
        "identify_gallery",
        "identify_probe",
    }
