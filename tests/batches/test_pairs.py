"""Pairs and batches, against the facts of method.md 4.3 and 5.2."""

import numpy as np
import pandas as pd
import pytest

from ecg_core.batches.pairs import cut_batches, frozen_batches, pair_segments, updates_of_epoch


def table(*rows: tuple[str, int]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["record_id", "segment"])
    return frame.assign(source="georgia", row=np.arange(len(frame)) + 100)


def test_neighbours_pair_and_the_odd_one_and_the_only_one_do_not() -> None:
    segments = table(("A", 0), ("A", 1), ("A", 2), ("B", 0), ("C", 0), ("C", 1))
    assert pair_segments(segments).tolist() == [[100, 101], [104, 105]]


def test_a_missing_segment_makes_its_neighbours_a_pair() -> None:
    assert pair_segments(table(("A", 2), ("A", 0))).tolist() == [[101, 100]]


def test_recordings_of_equal_name_in_two_sources_never_pair() -> None:
    segments = table(("A", 0), ("A", 0))
    segments["source"] = ["georgia", "ningbo"]
    assert len(pair_segments(segments)) == 0


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (124, [16] * 7 + [8, 4]),  # as golden/curves says
        (16, [16]),
        (20, [16, 4]),
        (24, [16, 8]),
        (7, [7]),
        (0, []),
    ],
)
def test_the_rest_of_an_epoch_is_cut_by_the_multiple_of_8_rule(n: int, sizes: list[int]) -> None:
    cuts = cut_batches(n, 16, 8)
    assert [end - start for start, end in cuts] == sizes
    assert [start for start, _ in cuts] == [0, *np.cumsum(sizes).tolist()][: len(sizes)]


def test_batches_keep_their_members_and_hold_every_pair_once() -> None:
    first, second = (frozen_batches(124, 16, 8, 1, "pretrain") for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert sorted(np.concatenate(first).tolist()) == list(range(124))
    other_seed = frozen_batches(124, 16, 8, 2, "pretrain")
    assert not np.array_equal(first[0], other_seed[0])


def test_every_epoch_takes_all_batches_in_another_order() -> None:
    epochs = [updates_of_epoch(9, 2, 1, epoch, "pretrain") for epoch in (1, 2)]
    for updates in epochs:
        assert [len(update) for update in updates] == [2, 2, 2, 2, 1]
        assert sorted(batch for update in updates for batch in update) == list(range(9))
    assert epochs[0] != epochs[1]


def test_nine_batches_on_four_devices_twice_are_two_updates() -> None:
    # ceil(ceil(9 / 4) / 2) = 2
    assert len(updates_of_epoch(9, 4 * 2, 1, 1, "pretrain")) == 2
