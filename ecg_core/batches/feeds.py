"""The order in which a training takes its micro-batches, and reading them ahead."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import pandas as pd

from ecg_core.batches.batch import Batch
from ecg_core.batches.dataset import DatasetParams, SegmentBatches, rows_of
from ecg_core.batches.pairs import frozen_batches, pair_segments, updates_of_epoch
from ecg_core.refusal import Refusal

ItemT = TypeVar("ItemT")
LoadedT = TypeVar("LoadedT")


def prefetch(
    load: Callable[[ItemT], LoadedT], items: Iterable[ItemT], workers: int
) -> Iterator[LoadedT]:
    """Load items in order, up to two a worker ahead; 0 workers load when asked.

    Threads: reading is a copy out of mapped memory, which needs no process of its own.
    """
    if workers == 0:
        yield from map(load, items)
        return
    waiting = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        queue: list[Future[LoadedT]] = [
            pool.submit(load, item) for item in islice(waiting, 2 * workers)
        ]
        while queue:
            loaded = queue.pop(0).result()
            queue.extend(pool.submit(load, item) for item in islice(waiting, 1))
            yield loaded


class BatchFeed:
    """Micro-batches with members that never change, in an order that every epoch shuffles."""

    def __init__(
        self,
        reader: SegmentBatches,
        members: list[np.ndarray],
        per_update: tuple[int, ...],
        workers: int,
        use: str,
    ) -> None:
        """`members` holds each batch's rows of the store; `per_update` counts batches, by epoch."""
        self.reader = reader
        self.members = members
        self.per_update = per_update
        self.workers = workers
        self.use = use

    def updates(self, epoch: int) -> list[Sequence[int]]:
        """Return, for each update of an epoch, the numbers of its micro-batches."""
        per_update = self.per_update[min(epoch, len(self.per_update)) - 1]
        seed = self.reader.seed
        return updates_of_epoch(len(self.members), per_update, seed, epoch, self.use)

    def load(self, batches: Iterable[int], epoch: int) -> Iterator[Batch]:
        """Load these micro-batches in their order; refuse a store that can no longer be read."""

        def read(batch: int) -> Batch:
            try:
                return self.reader.read(self.members[batch], epoch)
            except OSError as error:
                place, found = error.filename or self.reader.store.folder, error.strerror or error
                raise Refusal(f"{place}: expected to read segments, found: {found}") from None

        return prefetch(read, batches, self.workers)


def pair_feed(
    reader: SegmentBatches, split: pd.DataFrame, dataset: DatasetParams, per_update: tuple[int, ...]
) -> BatchFeed:
    """Return pretraining's micro-batches: pairs of the split's pretraining segments."""
    segments = rows_of(reader.store, split[split["pretrain"] == 1])
    pairs = pair_segments(segments)
    if not len(pairs):
        raise Refusal(
            f"data/split: expected recordings with two segments for pretraining, found none in "
            f"{len(segments)} segments"
        )
    sizes = dataset.batch_size, dataset.required_batch_size_multiple
    batches = frozen_batches(len(pairs), *sizes, reader.seed, "pretrain")
    members = [pairs[batch].ravel() for batch in batches]
    return BatchFeed(reader, members, per_update, dataset.num_workers, "pretrain")


@runtime_checkable
class BatchSizes(Protocol):
    """How finetuning cuts its batches."""

    @property
    def batch_size(self) -> int: ...
    @property
    def required_batch_size_multiple(self) -> int: ...
    @property
    def update_freq(self) -> tuple[int, ...]: ...


def segment_feed(reader: SegmentBatches, rows: np.ndarray, sizes: BatchSizes) -> BatchFeed:
    """Return finetuning's micro-batches of single segments, without any lead masking."""
    batches = frozen_batches(
        len(rows), sizes.batch_size, sizes.required_batch_size_multiple, reader.seed, "finetune"
    )
    return BatchFeed(reader, [rows[batch] for batch in batches], sizes.update_freq, 1, "finetune")
