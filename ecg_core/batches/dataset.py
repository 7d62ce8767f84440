"""Micro-batches of segments, ready for a model."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int
from pydantic import Field

from ecg_core.batches.augment import LeadChoice, TaskParams, lead_mask_of, mask_leads, select_leads
from ecg_core.batches.batch import Batch
from ecg_core.params import Section
from ecg_core.refusal import Refusal
from ecg_core.segments import SegmentStore


class DatasetParams(Section):
    """Section `dataset`, the public configuration's names."""

    num_workers: int = Field(ge=0)
    max_tokens: None
    batch_size: int = Field(ge=1)
    required_batch_size_multiple: int = Field(ge=1)
    valid_subset: Literal[""]
    disable_validation: Literal[True]


class SegmentBatches:
    """Read batches of a store's segments; chance belongs to a segment, not to its batch."""

    def __init__(
        self,
        store: SegmentStore,
        labels: Bool[np.ndarray, "segment class"] | None,
        leads: LeadChoice,
        task: TaskParams | None,
        seed: int,
    ) -> None:
        """`labels` has a row for each of the store's segments; `task` is pretraining's.

        Without `task` no lead is masked, and the leads that are not chosen are zero.
        """
        self.store = store
        self.labels = labels
        self.leads = leads
        self.pad_leads = task is None or task.enable_padding_leads
        self.task = task
        self.seed = seed
        index: pd.DataFrame = store.index
        self.records = (index["source"] + "/" + index["record_id"]).to_numpy()
        self.numbers = index["segment"].to_numpy()
        self.recording_ids = pd.factorize(self.records)[0]

    def read(self, rows: np.ndarray, epoch: int) -> Batch:
        """Return the store's rows, in their order, as epoch `epoch` sees them."""
        segments = [
            select_leads(segment, self.leads, self.pad_leads) for segment in self.store.read(rows)
        ]
        if self.task is not None and self.task.masks_leads:
            segments = [
                mask_leads(
                    segment,
                    lead_mask_of(
                        self.task,
                        self.seed,
                        epoch,
                        str(self.records[row]),
                        int(self.numbers[row]),
                        len(segment),
                    ),
                )
                for segment, row in zip(segments, rows, strict=True)
            ]
        return Batch(
            source=torch.from_numpy(np.stack(segments)),
            recording=torch.from_numpy(self.recording_ids[rows]),
            segment=torch.arange(len(rows)) % 2,
            labels=None if self.labels is None else torch.from_numpy(self.labels[rows]).float(),
            names=tuple(f"{self.records[row]}:{self.numbers[row]}" for row in rows),
        )

    def in_turn(self, rows: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """Yield these rows in their order, for evaluation."""
        for start in range(0, len(rows), batch_size):
            yield self.read(rows[start : start + batch_size], epoch=0)

    def recordings(self, rows: np.ndarray) -> Int[np.ndarray, " segment"]:
        """Return which recording each row belongs to, counted from 0 without gaps."""
        numbers: np.ndarray = pd.factorize(self.records[rows])[0]
        return numbers


def part_rows(store: SegmentStore, split: pd.DataFrame, part: str) -> np.ndarray:
    """Return the store's rows of one of finetuning's parts, in the split's order."""
    chosen = split[split["finetune"] == part]
    if not len(chosen):
        raise Refusal(
            f"data/split: expected segments in finetuning's part {part!r}, found none (see "
            "split.finetune_sources and the fractions)"
        )
    rows: np.ndarray = rows_of(store, chosen)["row"].to_numpy()
    return rows


def segment_labels(
    store: SegmentStore, manifest: pd.DataFrame, labels: Bool[np.ndarray, "record class"]
) -> Bool[np.ndarray, "segment class"]:
    """Return a row of labels for each of the store's segments: its record's."""
    key = ["source", "record_id"]
    records = manifest[key].assign(record=np.arange(len(manifest)))
    merged = store.index.merge(records, on=key, how="left", validate="many_to_one")
    if merged["record"].isna().any():
        lost = merged[merged["record"].isna()].iloc[0]
        raise Refusal(
            f"{store.folder}: expected only records of the manifest, found "
            f"{lost['source']}/{lost['record_id']}; run dvc repro"
        )
    labelled: np.ndarray = labels[merged["record"].to_numpy(np.int64)]
    return labelled


def rows_of(store: SegmentStore, split: pd.DataFrame) -> pd.DataFrame:
    """Return the split with each segment's `row` in the store; refuse segments it has not."""
    key = ["source", "record_id", "segment"]
    index = store.index.assign(row=np.arange(len(store)))
    merged = split.merge(index, on=key, how="left", validate="one_to_one")
    lost = merged[merged["row"].isna()]
    if len(lost):
        first = "/".join(str(value) for value in lost[key].iloc[0])
        raise Refusal(
            f"{store.folder}: expected every segment of the split, found {len(lost)} missing, "
            f"first {first}; run dvc repro"
        )
    return merged.astype({"row": np.int64})
