"""From kept records to a store in shards, here or behind a URL."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest

from ecg_core.manifest import write_manifest
from ecg_core.records import preprocess as module
from ecg_core.records import put_shards
from ecg_core.records.collect import collect
from ecg_core.records.preprocess import build_segments, state_folder
from ecg_core.refusal import Refusal
from ecg_core.segments import open_segments
from tests.records.examples import GEORGIA, params, signal, sums_of, write_record

ROOT = Path(__file__).parents[2]
LENGTHS = [5000, 2600, 20_100, 2500, 7499]
"""Samples of the recordings: 2, 1, 8, 1, 2 segments; shards of 3 cut the third into four."""
SEGMENT = 12 * 2500 * 2


def _archive(raw):
    for seed, length in enumerate(LENGTHS):
        write_record(raw, GEORGIA, f"E{seed}", signal(seed, length))


def _truth():
    """Return the digital values of every segment, cut by hand."""
    return np.stack(
        [
            signal(seed, length)[:, start : start + 2500]
            for seed, length in enumerate(LENGTHS)
            for start in range(0, length - 2499, 2500)
        ]
    )


def _build(tmp_path, **changes):
    raw, given = tmp_path / "raw", params(**changes)
    if not raw.exists():
        _archive(raw)
    manifest = collect(raw, sums_of(raw), given).manifest
    write_manifest(tmp_path / "manifest.csv", manifest)
    build_segments(manifest, raw, tmp_path / "segments", tmp_path / "state", given)
    return tmp_path / "segments"


def _content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ECG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(put_shards, "RETRY_PAUSES", (0.0,) * 2)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("url", [None, "file://{}/away"])
@pytest.mark.parametrize("per_shard", [1, 3, 14, 50])
def test_shards_hold_what_one_file_holds(tmp_path, workers, url, per_shard):
    one = _content(_build(tmp_path))
    assert set(one) == {"store.json", "recordings.csv", "gains.f32", "signals.i16"}
    url = url and url.format(tmp_path)
    folder = _build(tmp_path, workers=workers, segments_url=url, segments_per_shard=per_shard)
    many = _content(folder)
    assert many["recordings.csv"] == one["recordings.csv"]
    assert many["gains.f32"] == one["gains.f32"]
    shards = json.loads(many["store.json"])["shards"]
    assert [shard["segments"] for shard in shards] == [
        min(per_shard, 14 - start) for start in range(0, 14, per_shard)
    ]
    place = tmp_path / "away" if url else folder
    signals = b"".join((place / shard["name"]).read_bytes() for shard in shards)
    assert signals == one["signals.i16"] == _truth().astype("<i2").tobytes()
    np.testing.assert_array_equal(open_segments(folder).read_digital(range(14)), _truth())
    if url:
        assert set(many) == {"store.json", "recordings.csv", "gains.f32"}
    assert not (tmp_path / "state").exists()


def test_a_store_goes_to_any_place_that_fsspec_writes(tmp_path):
    folder = _build(tmp_path, segments_url="memory://ecg/store", segments_per_shard=4)
    assert len(fsspec.filesystem("memory").ls("/ecg/store")) == 4
    np.testing.assert_array_equal(open_segments(folder).read_digital(range(14)), _truth())


def test_a_url_without_a_size_of_shards_takes_one(tmp_path):
    folder = _build(tmp_path, segments_url=f"file://{tmp_path}/away")
    (shard,) = json.loads((folder / "store.json").read_text())["shards"]
    assert (shard["segments"], shard["size"]) == (14, 14 * SEGMENT)


def test_the_index_changes_with_the_signals_behind_the_url(tmp_path):
    url = f"file://{tmp_path}/away"
    first = _content(_build(tmp_path, segments_url=url, segments_per_shard=3))
    write_record(tmp_path / "raw", GEORGIA, "E3", signal(77, 2500))
    changed = _content(_build(tmp_path, segments_url=url, segments_per_shard=3))
    assert changed["store.json"] != first["store.json"]
    names = {s["name"] for s in json.loads(first["store.json"])["shards"]}
    assert names < {path.name for path in (tmp_path / "away").iterdir()}, "the first store is whole"


def test_shards_leave_the_local_disk_as_soon_as_they_are_put(tmp_path, monkeypatch):
    finish, most = module.finish_shard, []

    def watched(path, segments, url, note):
        most.append(sum(p.stat().st_size for p in path.parent.glob("*.i16")))
        finish(path, segments, url, note)

    monkeypatch.setattr(module, "finish_shard", watched)
    _build(tmp_path, segments_url=f"file://{tmp_path}/away", segments_per_shard=3)
    assert most == [3 * SEGMENT] * 4 + [2 * SEGMENT]


def test_space_is_asked_for_the_shards_under_way_alone(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 6 * SEGMENT})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    url = f"file://{tmp_path}/away"
    _build(tmp_path, segments_url=url, segments_per_shard=3, workers=2)
    for changes in ({"segments_per_shard": 3}, {"segments_url": url}):
        with pytest.raises(Refusal, match="GB of free space"):
            _build(tmp_path, **changes)


def test_a_run_that_stopped_puts_only_the_shards_that_are_missing(tmp_path, monkeypatch):
    changes = {"segments_url": f"file://{tmp_path}/away", "segments_per_shard": 3}
    whole = _content(_build(tmp_path, **changes))
    signals = _content(tmp_path / "away")
    shutil.rmtree(tmp_path / "segments")
    shutil.rmtree(tmp_path / "away")
    put, done = put_shards._put, []

    def fail_late(path, shard, url):
        if len(done) == 2:
            (tmp_path / "away" / shard.name).write_bytes(path.read_bytes()[:100])
            raise KeyboardInterrupt
        done.append(shard.name)
        put(path, shard, url)

    monkeypatch.setattr(put_shards, "_put", fail_late)
    with pytest.raises(KeyboardInterrupt):
        _build(tmp_path, **changes)
    assert not (tmp_path / "segments").exists()
    again = []
    monkeypatch.setattr(put_shards, "_put", lambda *a: (again.append(a[1].name), put(*a)))
    assert _content(_build(tmp_path, **changes)) == whole
    assert _content(tmp_path / "away") == signals
    assert len(again) == 3
    assert not set(again) & set(done)


_PROGRAM = """
import sys
from pathlib import Path
from ecg_core.manifest import read_manifest
from ecg_core.records.preprocess import build_segments
from tests.records.examples import params
here = Path(sys.argv[1])
given = params(workers=2, segments_url=f"file://{here}/away", segments_per_shard=1)
build_segments(read_manifest(here / "manifest.csv"), here / "raw", here / "segments",
               here / "state", given)
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_index(tmp_path):
    changes = {"segments_url": f"file://{tmp_path}/away", "segments_per_shard": 1, "workers": 2}
    whole = _content(_build(tmp_path, **changes))
    signals = _content(tmp_path / "away")
    shutil.rmtree(tmp_path / "segments")
    shutil.rmtree(tmp_path / "away")
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list((tmp_path / "state").glob("done/*")):
            pass
        process.kill()
    if (tmp_path / "state").exists():
        assert not (tmp_path / "segments").exists()
    assert _content(_build(tmp_path, **changes)) == whole
    assert _content(tmp_path / "away") == signals


def test_a_shard_that_is_there_already_is_not_put_again(tmp_path):
    changes = {"segments_url": f"file://{tmp_path}/away", "segments_per_shard": 3}
    _build(tmp_path, **changes)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "away").iterdir()}
    _build(tmp_path, **changes)
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "away").iterdir()}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuchplace://x", "expected a URL"),
        ("http://127.0.0.1:9/x", "127.0.0.1:9"),
        ("file:///proc/x", "expected a place that can be written to"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_refused(tmp_path, url, message):
    with pytest.raises(Refusal, match=message):
        _build(tmp_path, segments_url=url, segments_per_shard=3)
    assert not (tmp_path / "segments").exists()


def test_states_of_other_shards_are_never_picked_up(tmp_path):
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("one")
    changes = ({}, {"segments_per_shard": 3}, {"segments_url": "s3://x"})
    assert len({state_folder(manifest, params(**one)) for one in changes}) == 3


@pytest.mark.parametrize(
    ("key", "value"), [("segments_per_shard", 0), ("segments_url", "big/disk")]
)
def test_values_that_mean_nothing_are_refused(key, value):
    with pytest.raises(ValueError, match=key):
        params(**{key: value})
