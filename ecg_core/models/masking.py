"""Which frames are hidden from the transformer, and which hidden frames serve as negatives."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

Selection = Literal["static", "uniform", "normal", "poisson"]


def span_mask(
    rng: np.random.Generator,
    lengths: np.ndarray,
    n_frames: int,
    probability: float,
    span: int,
    selection: Selection,
    other: float,
    same_number: bool,
    min_spans: int = 2,
) -> Bool[np.ndarray, "batch frame"]:
    """Draw spans for every row, then cut every row at random to the row that hides the fewest.

    `lengths` counts the frames of each row that are not padding. `same_number` draws the number
    of spans once for all rows, as the original does for batches without padding. True hides a
    frame. method.md 2.5; the cut (Q10) leaves about 35 % of the frames in a batch of 128.
    """
    shared = _n_spans(rng, n_frames, probability, span, min_spans)
    rows = []
    for length in lengths.tolist():
        n = shared if same_number else _n_spans(rng, length, probability, span, min_spans)
        rows.append(_row_frames(rng, length, n, span, selection, other))
    fewest = min(len(row) for row in rows)
    mask = np.zeros((len(rows), n_frames), dtype=bool)
    for row, frames in enumerate(rows):
        if len(frames) > fewest:
            frames = rng.choice(frames, fewest, replace=False)
        mask[row, frames] = True
    return mask


def _n_spans(
    rng: np.random.Generator, length: int, probability: float, span: int, min_spans: int
) -> int:
    return max(min_spans, int(probability * length / span + rng.random()))


def _row_frames(
    rng: np.random.Generator, length: int, n: int, span: int, selection: Selection, other: float
) -> Int[np.ndarray, " frame"]:
    """Return the frames that the spans of one row cover, each once."""
    spans = _span_lengths(rng, n, span, selection, other)
    if spans.sum() == 0:
        spans[0] = min(span, length - 1)
    shortest = int(spans.min())
    if length - shortest <= n:
        shortest = length - n - 1
    starts = rng.choice(length - shortest, n, replace=False)
    frames = np.concatenate([np.arange(a, a + k) for a, k in zip(starts, spans, strict=True)])
    return np.unique(frames[frames < length])


def _span_lengths(
    rng: np.random.Generator, n: int, span: int, selection: Selection, other: float
) -> Int[np.ndarray, " span"]:
    if selection == "uniform":
        return rng.integers(int(other), 2 * span + 1, size=n)
    if selection == "normal":
        return np.maximum(1, np.round(rng.normal(span, other, size=n))).astype(np.int64)
    if selection == "poisson":
        return rng.poisson(span, size=n)
    return np.full(n, span, dtype=np.int64)


def draw_negatives(
    generator: torch.Generator, batch: int, masked: int, n_negatives: int
) -> Int[Tensor, "batch masked negative"]:
    """Draw for each hidden frame other hidden frames of the same segment, with replacement.

    Returns positions among the row's hidden frames, never the frame's own. method.md 2.7.
    """
    if masked < 2:
        return torch.zeros(batch, masked, 0, dtype=torch.int64)
    drawn = torch.randint(masked - 1, (batch, masked, n_negatives), generator=generator)
    own = torch.arange(masked)[None, :, None]
    return drawn + (drawn >= own)
