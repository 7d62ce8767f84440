"""Which segments make a pair, which pairs a batch, and in what order an epoch takes the batches."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ecg_core.seeds import numpy_generator


def pair_segments(segments: pd.DataFrame) -> np.ndarray:
    """Pair the segments of each recording that are there: (0, 1), (2, 3), ...

    `segments` has source, record_id, segment and `row`, the segment's place in the store. Returns
    (pair, 2) rows of the store; an odd last segment and a recording's only one have no pair.
    method.md 4.3.
    """
    key = ["source", "record_id"]
    ordered = segments.sort_values([*key, "segment"], kind="stable")
    recordings = ordered.groupby(key, sort=False)["row"]
    paired = recordings.cumcount() < recordings.transform("size") // 2 * 2
    rows: np.ndarray = ordered["row"].to_numpy(np.int64)[paired.to_numpy()]
    return rows.reshape(-1, 2)


def cut_batches(n: int, batch_size: int, multiple: int) -> list[tuple[int, int]]:
    """Cut n places into full batches; the rest r gives a multiple of `multiple` and r % multiple.

    124 pairs in 16s are seven 16s, 8 and 4. method.md 5.2.
    """
    sizes = [batch_size] * (n // batch_size)
    rest = n % batch_size
    sizes += [size for size in (rest // multiple * multiple, rest % multiple) if size]
    ends = np.cumsum(sizes).tolist()
    return [(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def frozen_batches(n: int, batch_size: int, multiple: int, seed: int, use: str) -> list[np.ndarray]:
    """Return the members of every batch, the same for the whole run. method.md 5.2, Q9."""
    order = numpy_generator("batch members", use, seed).permutation(n)
    return [order[start:end] for start, end in cut_batches(n, batch_size, multiple)]


def updates_of_epoch(
    n_batches: int, per_update: int, seed: int, epoch: int, use: str
) -> list[Sequence[int]]:
    """Shuffle the batches and group them into updates; the last may have fewer.

    `per_update` is world size x update_freq: batch j goes to device j mod world size, and every
    device accumulates update_freq of its own. method.md 5.2.
    """
    order = numpy_generator("batch order", use, seed, epoch).permutation(n_batches).tolist()
    return [order[start : start + per_update] for start in range(0, n_batches, per_update)]
