"""Listings, trees and paths of the raw files."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ecg_core.params import BadParams, parse_section
from ecg_core.records.raw import (
    BadRawFiles,
    DataParams,
    find_records,
    parse_sums,
    raw_folder,
    read_checksums,
    require_raw,
    wanted_files,
    write_checksums,
)
from tests.records.examples import params

SHA = "a" * 64


@pytest.mark.parametrize("space", [" ", "  ", " *"])
def test_a_listing_is_read_in_each_form_that_sha256sum_writes(space):
    assert parse_sums(f"{SHA}{space}training/x/E1.hea\n\n", "x") == {"training/x/E1.hea": SHA}


@pytest.mark.parametrize(
    "path",
    [
        "../E1.hea",
        "a/../../E1.hea",
        "/etc/passwd",
        "a//b.hea",
        "a/./b.hea",
        "..",
        r"..\E1.hea",
        r"C:\E1.hea",
        "C:/E1.hea",
        "a/\0.hea",
    ],
)
def test_a_path_that_would_leave_the_folder_is_refused(path):
    with pytest.raises(BadRawFiles, match="line 2: expected a path inside"):
        parse_sums(f"{SHA} good.hea\n{SHA} {path}\n", "SHA256SUMS.txt")


@pytest.mark.parametrize("line", ["<html>", "abc E1.hea", SHA, f"{SHA[:-1]}g E1.hea"])
def test_a_line_that_is_no_sum_is_refused(line):
    with pytest.raises(BadRawFiles, match="line 1"):
        parse_sums(line, "SHA256SUMS.txt")


def test_two_sums_of_one_file_are_refused():
    with pytest.raises(BadRawFiles, match="found two"):
        parse_sums(f"{SHA} x\n{'b' * 64} x\n", "SHA256SUMS.txt")


def test_checksums_survive_their_file_and_sha256sum_reads_them(tmp_path):
    sums = {"b/1/x": SHA, "a/1/y": "b" * 64}
    write_checksums(tmp_path / "c.txt", sums)
    assert read_checksums(tmp_path / "c.txt") == sums
    assert (tmp_path / "c.txt").read_text().splitlines()[0] == f"{'b' * 64}  a/1/y"


def test_the_command_that_brings_missing_files_is_named(tmp_path):
    with pytest.raises(BadRawFiles, match=r"stages\.download"):
        read_checksums(tmp_path / "none")
    with pytest.raises(BadRawFiles, match=r"stages\.download"):
        require_raw(tmp_path, {"ptb-xl/1.0.3/RECORDS": SHA})


def test_raw_files_live_in_the_users_archive_or_in_the_project(monkeypatch):
    monkeypatch.delenv("ECG_DATA", raising=False)
    monkeypatch.setenv("DVC_ROOT", "/project")
    assert raw_folder() == Path("/project/data/raw")
    monkeypatch.setenv("ECG_DATA", "/archive")
    assert raw_folder() == Path("/archive")


LISTING = [
    "RECORDS",
    "ptbxl_database.csv",
    "records100/00000/00001_lr.dat",
    "records100/00000/00002_lr.dat",
    "records500/00000/00001_hr.dat",
]


def test_of_ptbxl_the_100_hz_version_is_wanted_only_to_resample_and_without_another():
    plain = wanted_files(LISTING, "ptb-xl/1.0.3", resample=False)
    assert plain == [name for name in LISTING if "_lr" not in name]
    resampled = wanted_files(LISTING, "ptb-xl/1.0.3", resample=True)
    assert set(resampled) - set(plain) == {"records100/00000/00002_lr.dat"}


def test_the_table_of_patients_can_be_had_without_the_recordings():
    chosen = wanted_files(LISTING, "ptb-xl/1.0.3/ptbxl_database.csv", resample=True)
    assert chosen == ["RECORDS", "ptbxl_database.csv"]


def test_one_source_of_a_tree_can_be_chosen():
    listing = ["RECORDS", "training/georgia/g1/E1.hea", "training/georgia_2/g1/F1.hea"]
    chosen = wanted_files(listing, "challenge-2021/1.0.3/training/georgia", resample=False)
    assert chosen == ["RECORDS", "training/georgia/g1/E1.hea"]
    with pytest.raises(BadRawFiles, match=r"training/georgia/g1"):
        wanted_files(listing, "challenge-2021/1.0.3/training/gorgia", resample=False)


def test_records_are_found_in_their_sources_and_nothing_else_is():
    sums = [
        "challenge-2021/1.0.3/training/georgia/g1/E1.hea",
        "challenge-2021/1.0.3/training/georgia/g1/E1.mat",
        "challenge-2021/1.0.3/training/ptb/g1/S1.mat",
        "challenge-2021/1.0.3/RECORDS",
        "challenge-2021/1.0.3/other/x/E2.hea",
        "ptb-xl/1.0.3/records500/00000/00001_hr.hea",
        "ptb-xl/1.0.3/ptbxl_database.csv",
    ]
    found = find_records(sums, params().datasets)
    assert [(r.source, r.record_id, r.suffixes) for r in found] == [
        ("georgia", "E1", ("hea", "mat")),
        ("ptb", "S1", ("mat",)),
        ("ptb-xl-database", "00001_hr", ("hea",)),
    ]
    assert [r.source for r in find_records(sums, ["ptb-xl/1.0.3"])] == ["ptb-xl-database"]


@pytest.mark.parametrize(
    "change",
    [
        {"datasets": []},
        {"datasets": ["mimic/1.0"]},
        {"datasets": ["ptb-xl/../.."]},
        {"datasets": ["challenge-2021/1.0.3/../../x"]},
        {"mirror": "physionet.org/files"},
        {"mirror": ""},
        {"resample_method": "cubic"},
        {"workers": 0},
        {"max_refused": 1.5},
        {"seconds": 0.0},
    ],
)
def test_a_wrong_parameter_is_refused_by_name(change):
    values = {**params().model_dump(mode="json"), **change}
    with pytest.raises(BadParams, match=f"data.{next(iter(change))}"):
        parse_section("data", values, DataParams, Path("params.yaml"))


def test_parameters_cannot_be_changed():
    with pytest.raises(ValidationError):
        params().fs = 250  # type: ignore[misc]
