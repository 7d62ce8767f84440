"""The store of segments."""

import pickle
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest

from ecg_core.segments import (
    BadSegments,
    SegmentWriter,
    count_segments,
    create_segments,
    list_segments,
    open_segments,
    samples_at,
    segments_in,
)

RECORDINGS = pd.DataFrame(
    {"source": ["a", "a", "b"], "record_id": ["1", "02", "1"], "segments": [2, 0, 3]}
)
GAINS = np.array([1000, 200, 4880] * 4, np.float32)


def _signal(seed, n_samples):
    generator = np.random.default_rng(seed)
    return generator.integers(-32768, 32768, (12, n_samples), dtype=np.int16)


@pytest.fixture
def store(tmp_path):
    writer = create_segments(tmp_path / "s", RECORDINGS, fs=500, n_samples=10)
    writer.write(2, _signal(3, 39), GAINS)
    writer.write(0, _signal(1, 20), GAINS * 2)
    writer.write(1, _signal(2, 9), GAINS)
    writer.close()
    return open_segments(tmp_path / "s")


def test_the_index_names_every_segment_in_order(store):
    assert list(store.index.columns) == ["source", "record_id", "segment"]
    assert store.index.to_numpy().tolist() == [
        ["a", "1", 0],
        ["a", "1", 1],
        ["b", "1", 0],
        ["b", "1", 1],
        ["b", "1", 2],
    ]
    assert (len(store), store.fs, store.n_samples) == (5, 500, 10)


def test_segments_are_cut_one_after_another_and_the_tail_is_dropped(store):
    np.testing.assert_array_equal(store.read_digital([0, 1])[0], _signal(1, 20)[:, :10])
    np.testing.assert_array_equal(store.read_digital([4])[0], _signal(3, 39)[:, 20:30])


def test_millivolt_are_the_rounded_quotient_of_double_precision(store):
    read = store.read(np.array([4, 0]))
    assert read.dtype == np.float32
    assert read.shape == (2, 12, 10)
    expected = _signal(3, 39)[:, 20:30].astype(np.float64) / GAINS.astype(np.float64)[:, None]
    np.testing.assert_array_equal(read[0], expected.astype(np.float32))


def test_rows_come_in_the_order_asked_for_and_as_often(store):
    read = store.read([3, 1, 3])
    np.testing.assert_array_equal(read[0], read[2])
    np.testing.assert_array_equal(read[1], store.read([1])[0])
    assert store.read([]).shape == (0, 12, 10)


def test_a_store_survives_pickling_after_it_was_read(store):
    first = store.read([2])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).read([2]), first)


def _mean(store):
    return float(store.read([0]).mean())


def test_a_store_is_read_by_other_processes(store):
    with get_context("fork").Pool(2) as pool:
        assert set(pool.map(_mean, [store] * 4)) == {_mean(store)}


def test_several_writers_fill_one_store(tmp_path, store):
    create_segments(tmp_path / "t", RECORDINGS, fs=500, n_samples=10).close()
    for recording, signal, gains in [
        (0, _signal(1, 20), GAINS * 2),
        (2, _signal(3, 39), GAINS),
        (1, _signal(2, 9), GAINS),
    ]:
        counts, first = {0: ([2, 0], 0), 1: ([0], 2), 2: ([3], 2)}[recording]
        writer = SegmentWriter(
            tmp_path / "t", counts, n_samples=10, recording=recording, segment=first
        )
        writer.write(recording, signal, gains)
        writer.close()
    for name in ("store.json", "recordings.csv", "gains.f32", "signals.i16"):
        assert (tmp_path / "t" / name).read_bytes() == (store.folder / name).read_bytes()


@pytest.mark.parametrize("name", ["store.json", "recordings.csv", "gains.f32", "signals.i16"])
def test_a_store_with_a_file_missing_is_refused(store, name):
    (store.folder / name).unlink()
    with pytest.raises(BadSegments):
        open_segments(store.folder)


@pytest.mark.parametrize("name", ["gains.f32", "signals.i16"])
def test_a_store_that_was_cut_is_refused_with_both_sizes(store, name):
    content = (store.folder / name).read_bytes()
    (store.folder / name).write_bytes(content[:-1])
    with pytest.raises(BadSegments, match=f"expected {len(content)} bytes.*{len(content) - 1}"):
        open_segments(store.folder)


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    with pytest.raises(BadSegments, match="expected a store"):
        open_segments(tmp_path)


@pytest.mark.parametrize(
    ("n_samples", "fs", "segments"),
    [
        (5000, 500, 2),
        (2500, 500, 1),
        (2499, 500, 0),
        (7499, 500, 2),
        (115_200, 1000, 23),
        (462_600, 257, 360),
        (1000, 100, 2),
    ],
)
def test_a_recording_gives_as_many_segments_as_fit_whole(n_samples, fs, segments):
    assert segments_in(n_samples, float(fs), 500, 5.0) == segments
    assert samples_at(n_samples, float(fs), 500) == n_samples * 500 // fs


def test_segments_of_a_manifest_are_counted_and_listed():
    manifest = RECORDINGS.assign(n_samples=[5000, 100, 2500], fs=[500.0, 500.0, 250.0])
    counted = count_segments(manifest, fs=500, seconds=5.0)
    assert counted["segments"].tolist() == [2, 0, 2]
    assert list_segments(counted)["segment"].tolist() == [0, 1, 0, 1]
