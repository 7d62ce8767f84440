"""What of a recording is embedded: all its segments, or one random crop (method.md 4.2)."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from ecg_core.batches.batch import Batch
from ecg_core.batches.dataset import SegmentBatches
from ecg_core.seeds import numpy_generator


def to_embed(
    reader: SegmentBatches,
    rows: Int[np.ndarray, " segment"],
    recording: Int[np.ndarray, " segment"],
    batch_size: int,
    crop: bool,
) -> Iterator[Batch]:
    """Yield all segments in turn, or one random crop of each recording."""
    return random_crops(reader, rows, recording) if crop else reader.in_turn(rows, batch_size)


def random_crops(
    reader: SegmentBatches,
    rows: Int[np.ndarray, " segment"],
    recording: Int[np.ndarray, " segment"],
) -> Iterator[Batch]:
    """Yield each recording's crop in turn, a segment long, anywhere in its stored segments.

    `recording` counts from 0; a recording's rows follow each other in the signal's order.
    """
    for number in range(int(recording.max(initial=-1)) + 1):
        mine = rows[recording == number]
        batch = reader.read(mine, epoch=0)
        signal = batch.source.transpose(0, 1).flatten(1)
        n_samples = batch.source.shape[-1]
        rng = numpy_generator("identify crop", reader.seed, str(reader.records[mine[0]]))
        start = int(rng.integers(0, signal.shape[-1] - n_samples + 1))
        crop = signal[None, :, start : start + n_samples].contiguous()
        yield replace(
            batch,
            source=crop,
            recording=batch.recording[:1],
            segment=batch.segment[:1],
            names=batch.names[:1],
        )
