"""From kept records to the store of segments."""

import json
import os
import signal as signals
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ecg_core.manifest import label_matrix, write_manifest
from ecg_core.records import preprocess as module
from ecg_core.records.collect import collect
from ecg_core.records.preprocess import ChangedRecord, build_segments, state_folder
from ecg_core.refusal import Refusal
from ecg_core.segments import open_segments
from tests.records.examples import (
    GEORGIA,
    dat,
    mat,
    params,
    signal,
    sums_of,
    write_record,
)

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("store.json", "recordings.csv", "gains.f32", "signals.i16")


def _build(tmp_path, **changes):
    raw, given = tmp_path / "raw", params(**changes)
    manifest = collect(raw, sums_of(raw), given).manifest
    write_manifest(tmp_path / "manifest.csv", manifest)
    build_segments(manifest, raw, tmp_path / "segments", tmp_path / "state", given)
    return open_segments(tmp_path / "segments")


def _bytes(folder):
    return [(folder / name).read_bytes() for name in NAMES]


@pytest.mark.parametrize("name", ["georgia/E07500", "ptb-xl/HR06000", "ningbo/JS20000"])
def test_segments_of_real_recordings_are_those_of_the_original(tmp_path, name):
    golden = np.load(GOLDEN / "c7_preprocess.npz")
    described = json.loads((GOLDEN / "c7_preprocess.json").read_text())[name]
    source, record_id = name.split("/")
    stem = tmp_path / "raw/challenge-2021/1.0.3/training" / source / "g1" / record_id
    stem.parent.mkdir(parents=True)
    stem.with_suffix(".hea").write_text(described["header"])
    stem.with_suffix(".mat").write_bytes(mat(golden[f"{name}/raw"]))
    store = _build(tmp_path)
    assert len(store) == 2
    np.testing.assert_array_equal(store.read([0])[0], golden[f"{name}_0/feats"].astype(np.float32))
    np.testing.assert_array_equal(store.read([1])[0], golden[f"{name}_1/feats"])


def test_the_label_of_a_real_recording_is_that_of_the_original(tmp_path):
    described = json.loads((GOLDEN / "c7_preprocess.json").read_text())
    golden = np.load(GOLDEN / "c7_preprocess.npz")
    for name, content in described.items():
        source, record_id = name.split("/")
        stem = tmp_path / "raw/challenge-2021/1.0.3/training" / source / "g1" / record_id
        stem.parent.mkdir(parents=True)
        stem.with_suffix(".hea").write_text(content["header"])
        stem.with_suffix(".mat").write_bytes(mat(golden[f"{name}/raw"]))
    manifest = collect(tmp_path / "raw", sums_of(tmp_path / "raw"), params()).manifest

    for row, labels in zip(manifest.itertuples(), label_matrix(manifest), strict=True):
        expected = described[f"{row.source}/{row.record_id}"]["segments"][0]["label"]
        assert labels.astype(int).tolist() == np.ravel(expected).tolist()


def _archive(tmp_path, count=220):
    for seed in range(count):
        write_record(tmp_path / "raw", GEORGIA, f"E{seed:03}", signal(seed, 2500 + seed % 50 * 60))


def test_several_processes_write_what_one_writes(tmp_path):
    _archive(tmp_path)
    one = _bytes(_build(tmp_path).folder)
    assert _bytes(_build(tmp_path, workers=3).folder) == one
    assert not (tmp_path / "state").exists()


def test_recordings_at_other_rates_are_resampled_into_the_same_store(tmp_path):
    write_record(tmp_path / "raw", GEORGIA, "E1", signal(1, 5000))
    write_record(tmp_path / "raw", GEORGIA, "E2", signal(2, 5000), fs=250)
    store = _build(tmp_path, resample=True)
    assert store.index["segment"].tolist() == [0, 1, 0, 1, 2, 3]
    np.testing.assert_array_equal(store.read_digital([0])[0], signal(1, 5000)[:, :2500])


def test_a_run_that_stopped_goes_on_where_it_was(tmp_path, monkeypatch):
    _archive(tmp_path)
    whole = _bytes(_build(tmp_path).folder)
    (tmp_path / "segments" / "store.json").unlink()
    read, counter = module.read_samples, []

    def fail_late(path, n_leads, n_samples):
        counter.append(path)
        if len(counter) == 201:
            raise KeyboardInterrupt
        return read(path, n_leads, n_samples)

    monkeypatch.setattr(module, "read_samples", fail_late)
    with pytest.raises(KeyboardInterrupt):
        _build(tmp_path)
    assert not (tmp_path / "segments" / "store.json").exists()
    counter.clear()
    monkeypatch.setattr(module, "read_samples", lambda *a: (counter.append(a), read(*a))[1])
    assert _bytes(_build(tmp_path).folder) == whole
    assert len(counter) == 20


_PROGRAM = """
import sys
from pathlib import Path
from ecg_core.manifest import read_manifest
from ecg_core.records.preprocess import build_segments
from tests.records.examples import params
here = Path(sys.argv[1])
build_segments(read_manifest(here / "manifest.csv"), here / "raw", here / "segments",
               here / "state", params(workers=2))
"""


def test_a_killed_run_leaves_nothing_half_done_and_no_process(tmp_path):
    _archive(tmp_path)
    whole = _bytes(_build(tmp_path).folder)
    for name in NAMES:
        (tmp_path / "segments" / name).unlink()
    (tmp_path / "segments").rmdir()
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path)]
    process = subprocess.Popen(command, cwd=GOLDEN.parents[1], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / "state" / "done").exists():
        pass
    os.kill(process.pid, signals.SIGKILL)
    process.wait()
    if (tmp_path / "state").exists():
        assert not (tmp_path / "segments").exists()
    assert _bytes(_build(tmp_path).folder) == whole


def test_a_signal_that_changed_since_the_manifest_stops_the_stage(tmp_path):
    _archive(tmp_path, 3)
    raw, given = tmp_path / "raw", params()
    manifest = collect(raw, sums_of(raw), given).manifest
    write_record(raw, GEORGIA, "E001", signal(77, 2560))
    with pytest.raises(ChangedRecord, match=r"E001\.mat: changed since the manifest.*checksums"):
        build_segments(manifest, raw, tmp_path / "segments", tmp_path / "state", given)
    (raw / GEORGIA / "E001.mat").write_bytes(dat(signal(1)))
    with pytest.raises(ChangedRecord, match=r"stages\.download"):
        build_segments(manifest, raw, tmp_path / "segments", tmp_path / "state", given)
    assert not (tmp_path / "segments").exists()


def test_too_little_space_is_said_at_the_start(tmp_path, monkeypatch):
    _archive(tmp_path, 2)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(Refusal, match="GB of free space"):
        _build(tmp_path)


def test_what_an_earlier_boot_left_unfinished_is_done_anew(tmp_path, monkeypatch):
    _archive(tmp_path)
    whole = _bytes(_build(tmp_path).folder)
    boot, read, counter = tmp_path / "boot_id", module.read_samples, []
    monkeypatch.setattr(module, "_BOOT", boot)

    def fail_late(path, n_leads, n_samples):
        counter.append(path)
        if len(counter) == 201:
            raise KeyboardInterrupt
        return read(path, n_leads, n_samples)

    boot.write_text("one")
    monkeypatch.setattr(module, "read_samples", fail_late)
    with pytest.raises(KeyboardInterrupt):
        _build(tmp_path)
    boot.write_text("two")
    counter[:] = ["of the second boot"] * 1000
    assert _bytes(_build(tmp_path).folder) == whole
    assert len(counter) == 1220


def test_a_run_killed_while_its_store_was_put_in_place_is_done_anew(tmp_path, monkeypatch):
    _archive(tmp_path, 5)
    whole = _bytes(_build(tmp_path).folder)
    moved = module.shutil.move

    def move_and_die(source, target):
        moved(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(module.shutil, "move", move_and_die)
    with pytest.raises(KeyboardInterrupt):
        _build(tmp_path)
    monkeypatch.setattr(module.shutil, "move", moved)
    assert _bytes(_build(tmp_path).folder) == whole


def test_the_state_belongs_to_the_manifest_and_the_parameters(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("one")
    states = {state_folder(manifest, params(fs=fs)) for fs in (250, 500)}
    manifest.write_text("two")
    states.add(state_folder(manifest, params()))
    assert len(states) == 3
    assert {state.parent for state in states} == {tmp_path / ".state"}
    assert state_folder(manifest, params()) == state_folder(manifest, params(workers=7))
