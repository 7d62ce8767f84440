"""A store in shards, here or behind a URL, is the store in one file."""

import json
import os
import pickle
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecg_core import shards
from ecg_core.refusal import Refusal
from ecg_core.segments import BadSegments, create_segments, open_segments
from tests.records.faulty_server import faulty_mirror
from tests.sharded import cut_into_shards

COUNTS = [2, 0, 3, 7, 1]
N, SAMPLES = 13, 10
SHARD = 4 * 12 * SAMPLES * 2
"""Bytes of a shard of four segments; the recording of seven lies in three of the four shards."""


def _truth():
    """Return digital values and gains of all segments, from numpy alone."""
    generator = np.random.default_rng(5)
    digital = generator.integers(-32768, 32768, (N, 12, SAMPLES), dtype=np.int16)
    gains = generator.choice(np.array([1000, 200, 4880], np.float32), (len(COUNTS), 12))
    return digital, gains


def _make(folder):
    digital, gains = _truth()
    recordings = pd.DataFrame(
        {"source": "a", "record_id": [f"0{i}" for i in range(len(COUNTS))], "segments": COUNTS}
    )
    writer = create_segments(folder, recordings, fs=500, n_samples=SAMPLES)
    ends = np.cumsum(COUNTS)
    for recording, (end, count) in enumerate(zip(ends, COUNTS, strict=True)):
        signal = digital[end - count : end].transpose(1, 0, 2).reshape(12, -1)
        writer.write(recording, signal, gains[recording])
    writer.close()
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ECG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "RETRY_PAUSES", (0.0,) * 6)
    return tmp_path / "cache"


@pytest.fixture
def away(tmp_path, cache):
    """Return the index of a store whose shards lie in tmp_path / "away"."""
    folder = _make(tmp_path / "index")
    cut_into_shards(folder, 4, tmp_path / "away")
    return folder


def _shards(cache):
    return sorted(cache.glob("*.i16"))


@pytest.mark.parametrize("per_shard", [1, 3, 4, 13, 100])
@pytest.mark.parametrize("put", [False, True], ids=["here", "behind a URL"])
def test_random_rows_over_borders_are_the_values_that_were_put_in(tmp_path, cache, per_shard, put):
    folder = _make(tmp_path / "s")
    index = open_segments(folder).index
    cut_into_shards(folder, per_shard, tmp_path / "away" if put else None)
    digital, gains = _truth()
    store = open_segments(folder)
    rows = np.random.default_rng(1).integers(0, N, 40)
    millivolt = digital / np.repeat(gains, COUNTS, axis=0)[:, :, None].astype(np.float64)
    np.testing.assert_array_equal(store.read_digital(rows), digital[rows])
    np.testing.assert_array_equal(store.read(rows), millivolt.astype(np.float32)[rows])
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(store)).read_digital(rows), digital[rows]
    )
    pd.testing.assert_frame_equal(store.index, index)
    assert len(store) == N
    with pytest.raises(IndexError):
        store.read([N])


def test_only_the_shards_that_are_touched_are_fetched(away, cache):
    store = open_segments(away)
    assert not cache.exists()
    store.read([4, 7])
    assert [path.stat().st_size for path in _shards(cache)] == [SHARD]
    store.read([12])
    assert sorted(path.stat().st_size for path in _shards(cache)) == [SHARD // 4, SHARD]


def test_the_cache_lies_in_the_project_s_state_where_nothing_else_is_said(away, monkeypatch):
    monkeypatch.delenv("ECG_CACHE")
    monkeypatch.setenv("DVC_ROOT", str(away.parent / "project"))
    open_segments(away).read([0])
    assert len(_shards(away.parent / "project/.state/segments-cache")) == 1


def _spoil(path, how):
    content = path.read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1])
    path.write_bytes({"torn": content[:-7], "changed": changed, "empty": b""}[how])


@pytest.mark.parametrize("how", ["torn", "changed", "empty"])
def test_a_damaged_file_in_the_cache_is_fetched_again(away, cache, how):
    open_segments(away).read([0])
    _spoil(_shards(cache)[0], how)
    np.testing.assert_array_equal(open_segments(away).read_digital([3])[0], _truth()[0][3])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("torn", rf"file://.*/part-1\.i16: expected {SHARD} bytes, found {SHARD - 7}"),
        ("changed", r"file://.*/part-1\.i16: expected SHA-256 [0-9a-f]{64}, found [0-9a-f]{64}"),
        (None, rf"file://.*/part-1\.i16: expected a file, found.*{SHARD} bytes"),
    ],
)
def test_a_shard_behind_the_url_that_is_not_what_the_index_says_is_refused(
    away, cache, how, message
):
    path = away.parent / "away/part-1.i16"
    _spoil(path, how) if how else path.unlink()
    store = open_segments(away)
    store.read([0, 12])
    with pytest.raises(BadSegments, match=message):
        store.read([5])
    assert len(_shards(cache)) == 2


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("torn", f"part-1.i16: expected {SHARD} bytes .*, found {SHARD - 7}"),
        ("changed", "part-1.i16: expected SHA-256 [0-9a-f]{64}, found [0-9a-f]{64}"),
        (None, f"part-1.i16: expected {SHARD} bytes .*, found None"),
    ],
)
def test_a_shard_beside_the_index_that_is_not_what_it_says_is_refused(tmp_path, how, message):
    folder = _make(tmp_path / "s")
    cut_into_shards(folder, 4)
    path = folder / "part-1.i16"
    _spoil(path, how) if how else path.unlink()
    with pytest.raises(BadSegments, match=message):
        open_segments(folder).read([5])


def test_an_index_that_lists_too_few_segments_is_refused(away):
    meta = json.loads((away / "store.json").read_text())
    (away / "store.json").write_text(json.dumps({**meta, "shards": meta["shards"][:-1]}))
    with pytest.raises(BadSegments, match="expected shards of 13 segments of 240 bytes, found 12"):
        open_segments(away)


def test_a_network_that_fails_for_a_moment_is_asked_again(tmp_path, cache):
    folder = _make(tmp_path / "s")
    with faulty_mirror(tmp_path / "away") as server:
        cut_into_shards(folder, 4, tmp_path / "away", server.url)
        faults = ["503", "cut", "drop", "wrong"]
        server.fault = lambda path, before: faults[before] if before < len(faults) else ""
        rows = np.arange(N)[::-1]
        np.testing.assert_array_equal(open_segments(folder).read_digital(rows), _truth()[0][rows])
        assert sorted(server.served()) == [f"part-{i}.i16" for i in range(4)]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("503", r"http://.*/part-0\.i16: expected an answer, found ClientResponseError.*7 times"),
        ("wrong", r"http://.*/part-0\.i16: expected SHA-256 [0-9a-f]{64}, found [0-9a-f]{64}"),
    ],
)
def test_a_network_that_stays_bad_is_refused_with_url_expected_and_found(
    tmp_path, cache, fault, message
):
    folder = _make(tmp_path / "s")
    with faulty_mirror(tmp_path / "away") as server:
        cut_into_shards(folder, 4, tmp_path / "away", server.url)
        server.fault = lambda path, before: fault
        with pytest.raises(BadSegments, match=message):
            open_segments(folder).read([0])
    assert _shards(cache) == []


@pytest.mark.parametrize("url", ["nosuchplace://x", "s3:/x"])
def test_a_url_that_nothing_reads_is_refused(away, cache, url):
    meta = json.loads((away / "store.json").read_text())
    (away / "store.json").write_text(json.dumps({**meta, "url": url}))
    with pytest.raises(BadSegments, match=url):
        open_segments(away).read([0])


def test_a_cache_smaller_than_the_set_holds_its_limit_and_gives_the_same_values(
    away, cache, monkeypatch
):
    monkeypatch.setenv("ECG_CACHE_GB", str(2 * SHARD / 1e9))
    store, sizes = open_segments(away), []
    for rows in np.random.default_rng(2).integers(0, N, (30, 5)):
        np.testing.assert_array_equal(store.read_digital(rows), _truth()[0][rows])
        sizes.append(sum(path.stat().st_size for path in _shards(cache)))
        mapped = Path("/proc/self/maps").read_text()
        assert mapped.count(str(cache)) == len(_shards(cache)), "a map keeps a deleted file"
    assert 0 < min(sizes) <= max(sizes) <= 2 * SHARD


def test_the_shard_that_was_used_longest_ago_leaves_first(away, cache, monkeypatch):
    monkeypatch.setenv("ECG_CACHE_GB", str(2 * SHARD / 1e9))
    store = open_segments(away)
    names = {}
    for row in (0, 4):
        before = set(_shards(cache))
        store.read([row])
        names[row] = (set(_shards(cache)) - before).pop()
        time.sleep(0.02)
    store.read([1])
    time.sleep(0.02)
    store.read([8])
    assert names[0].exists()
    assert not names[4].exists()


@pytest.mark.parametrize(
    ("limit", "message"), [("many", "gigabytes, found 'many'"), ("1e-9", "room for a shard")]
)
def test_a_limit_that_cannot_be_kept_is_refused(away, cache, monkeypatch, limit, message):
    monkeypatch.setenv("ECG_CACHE_GB", limit)
    with pytest.raises(Refusal, match=f"ECG_CACHE_GB: expected {message}"):
        open_segments(away)


def _read_all(folder, seed):
    rows = np.random.default_rng(seed).integers(0, N, 200)
    store = open_segments(folder)
    return all(
        np.array_equal(store.read_digital(part), _truth()[0][part]) for part in rows.reshape(-1, 4)
    )


@pytest.mark.parametrize("limit", [None, 2 * SHARD / 1e9])
def test_processes_share_a_cache_without_half_files(away, cache, monkeypatch, limit):
    if limit:
        monkeypatch.setenv("ECG_CACHE_GB", str(limit))
    with get_context("fork").Pool(4) as pool:
        assert pool.starmap(_read_all, [(away, seed) for seed in range(8)]) == [True] * 8
    assert not list(cache.glob("*.tmp"))


def test_threads_and_processes_fetch_a_shard_once(tmp_path, cache):
    folder = _make(tmp_path / "s")
    with faulty_mirror(tmp_path / "away") as server:
        cut_into_shards(folder, 4, tmp_path / "away", server.url)
        store, found = open_segments(folder), []
        reading = [
            threading.Thread(target=lambda: found.append(store.read_digital(np.arange(N))))
            for _ in range(6)
        ]
        for thread in reading:
            thread.start()
        for thread in reading:
            thread.join()
        with get_context("fork").Pool(2) as pool:
            assert pool.starmap(_read_all, [(folder, 1), (folder, 2)]) == [True, True]
        assert sorted(server.served()) == [f"part-{i}.i16" for i in range(4)]
    for values in found:
        np.testing.assert_array_equal(values, _truth()[0])


def test_what_a_killed_process_left_half_fetched_is_written_over(away, cache):
    open_segments(away).read([0])
    (path,) = _shards(cache)
    path.rename(path.with_suffix(".tmp"))
    os.truncate(path.with_suffix(".tmp"), 5)
    np.testing.assert_array_equal(open_segments(away).read_digital([0])[0], _truth()[0][0])
    assert not list(cache.glob("*.tmp"))
