"""Span masks and negatives: laws that hold for every draw."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecg_core.models.masking import draw_negatives, span_mask


def mask(seed: int, lengths: list[int], frames: int, **changes: object) -> np.ndarray:
    settings = {
        "probability": 0.65,
        "span": 10,
        "selection": "static",
        "other": 0.0,
        "same_number": True,
        **changes,
    }
    return span_mask(np.random.default_rng(seed), np.array(lengths), frames, **settings)


@given(seed=st.integers(0, 1000), rows=st.integers(1, 6), frames=st.integers(30, 200))
def test_every_row_hides_the_same_number_of_frames(seed: int, rows: int, frames: int) -> None:
    counts = mask(seed, [frames] * rows, frames).sum(axis=1)
    assert len(set(counts.tolist())) == 1
    assert counts[0] >= 10


@given(seed=st.integers(0, 1000))
def test_the_row_that_hides_the_fewest_keeps_whole_spans(seed: int) -> None:
    """The others are cut frame by frame, so only an uncut row is made of runs of ten or more."""
    rows = mask(seed, [156] * 8, 156)
    edges = np.diff(np.pad(rows, ((0, 0), (1, 1))).astype(int), axis=1)
    shortest = [(np.flatnonzero(row == -1) - np.flatnonzero(row == 1)).min() for row in edges]
    assert max(shortest) >= 10


@given(seed=st.integers(0, 300), lengths=st.lists(st.integers(25, 156), min_size=1, max_size=5))
def test_padding_is_never_hidden(seed: int, lengths: list[int]) -> None:
    rows = mask(seed, lengths, 156, same_number=False)
    for row, length in zip(rows, lengths, strict=True):
        assert not row[length:].any()
    assert len(set(rows.sum(axis=1).tolist())) == 1


@pytest.mark.parametrize("selection", ["static", "uniform", "normal", "poisson"])
def test_every_way_to_choose_lengths_gives_masks(selection: str) -> None:
    other = {"static": 0.0, "uniform": 5.0, "normal": 3.0, "poisson": 0.0}[selection]
    rows = mask(3, [156] * 200, 156, selection=selection, other=other)
    assert 0 < rows.mean() < 0.65


def test_one_row_of_one_length_hides_what_its_spans_cover() -> None:
    counts = [int(mask(seed, [156], 156).sum()) for seed in range(300)]
    # 10 or 11 spans of 10 frames, more or less on top of each other
    assert min(counts) >= 10
    assert max(counts) <= 110


def test_a_short_row_has_at_least_two_spans_if_they_fit() -> None:
    for seed in range(50):
        assert mask(seed, [13], 13).sum() >= 10


@given(seed=st.integers(0, 1000), masked=st.integers(2, 12))
def test_negatives_are_other_hidden_frames_of_the_segment(seed: int, masked: int) -> None:
    drawn = draw_negatives(torch.Generator().manual_seed(seed), 3, masked, 40)
    assert drawn.shape == (3, masked, 40)
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < masked
    assert not bool((drawn == torch.arange(masked)[None, :, None]).any())


def test_a_single_hidden_frame_has_no_negatives() -> None:
    assert draw_negatives(torch.Generator(), 4, 1, 100).shape == (4, 1, 0)
