"""The split: which part each segment takes in pretraining, finetuning and identification."""

from pathlib import Path

import pandas as pd

from ecg_core.refusal import Refusal
from ecg_core.tables import read_table, write_csv

SPLIT_COLUMNS = ("source", "record_id", "segment", "patient", "pretrain", "finetune", "identify")
"""One row a segment. `pretrain` is 0 or 1; the others name a part, "" for none."""

FINETUNE_PARTS = ("train", "valid", "test")
IDENTIFY_PARTS = ("train", "gallery", "probe")


class BadSplit(Refusal):
    """A split cannot be used."""


def read_split(path: Path) -> pd.DataFrame:
    """Return a split, one row a segment; raise BadSplit when the file is none."""
    table = read_table(path, SPLIT_COLUMNS, "split", BadSplit)
    return table.astype({"segment": "int64", "pretrain": "int64"})


def write_split(path: Path, split: pd.DataFrame) -> None:
    """Write a split with its columns in order."""
    write_csv(path, split[list(SPLIT_COLUMNS)])
