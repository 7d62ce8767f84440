"""Published split files: a CSV of part, source, record_id, read (`split.file`) and written."""

import csv
from collections.abc import Set
from pathlib import Path

import pandas as pd

from ecg_core.outputs import write_text
from ecg_core.splits import BadSplit

COLUMNS = ("part", "source", "record_id")
PARTS = {
    "pretrain": "pretrain",
    "finetune_train": "train",
    "finetune_valid": "valid",
    "finetune_test": "test",
    "train": "train",
    "valid": "valid",
    "test": "test",
}


def read_split_file(path: Path, known: Set[str]) -> dict[str, set[str]]:
    """Return the record keys of the parts pretrain, train, valid and test.

    `known` has the keys of all kept records. Raises BadSplit, with the line, for an unknown part or
    record, a record named twice, or one in two parts of finetuning.
    """
    if not path.is_file():
        raise BadSplit(f"params.yaml: split.file: expected a file, found none at {path}")
    listed: dict[str, set[str]] = {part: set() for part in ("pretrain", "train", "valid", "test")}
    finetune: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not set(COLUMNS) <= set(reader.fieldnames or ()):
            found = ", ".join(reader.fieldnames or ()) or "nothing"
            raise BadSplit(f"{path}, line 1: expected columns {', '.join(COLUMNS)}, found {found}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            part, key = PARTS.get(row["part"] or ""), f"{row['source']}/{row['record_id']}"
            if part is None:
                raise BadSplit(f"{where}: expected one of {', '.join(PARTS)}, found {row['part']}")
            if key not in known:
                raise BadSplit(f"{where}: expected a record of the manifest, found {key}")
            if key in listed[part]:
                raise BadSplit(f"{where}: expected each record once in a part, found {key} again")
            if part != "pretrain" and finetune.setdefault(key, part) != part:
                raise BadSplit(
                    f"{where}: expected {key} in one part of finetuning, "
                    f"found {finetune[key]} and {part}"
                )
            listed[part].add(key)
    return listed


def write_split_file(path: Path, split: pd.DataFrame) -> None:
    """Write the parts of a split that keeps recordings whole as a file that `split.file` reads."""
    records = split.drop_duplicates(["source", "record_id"])
    lines = [
        ("pretrain", source, record_id)
        for source, record_id in _names(records[records["pretrain"] == 1])
    ]
    for part in ("train", "valid", "test"):
        chosen = records[records["finetune"] == part]
        lines += [(f"finetune_{part}", source, record_id) for source, record_id in _names(chosen)]
    write_text(path, "\n".join([",".join(COLUMNS), *(",".join(line) for line in lines)]) + "\n")


def _names(records: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(records["source"], records["record_id"], strict=True))
