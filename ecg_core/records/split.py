"""Which part each segment takes: by a hash of its patient's key, so by nothing but key and seed."""

from collections.abc import Mapping, Set
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from ecg_core.manifest import PTBXL_PATIENT
from ecg_core.params import Section
from ecg_core.records.raw import PTBXL_SOURCE
from ecg_core.seeds import seed_of
from ecg_core.splits import SPLIT_COLUMNS, BadSplit

Sources = Annotated[tuple[str, ...], Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]

_PTBXL_PARTS = {9: "valid", 10: "test"}


class SplitParams(Section):
    """The section `split` of params.yaml."""

    unit: Literal["patient", "recording", "segment", "source"]
    file: str | None
    seed: int
    valid_fraction: Fraction
    test_fraction: Fraction
    finetune_sources: Sources
    pretrain_sources: Sources
    holdout_source: str | None
    ptbxl_folds: bool
    heldout_in_pretraining: bool
    exclude_identify_from_pretraining: bool

    @model_validator(mode="after")
    def _fits_together(self) -> "SplitParams":
        if self.valid_fraction + self.test_fraction > 1:
            raise ValueError("expected valid_fraction and test_fraction to be at most 1 together")
        if PTBXL_SOURCE in self.finetune_sources:
            raise ValueError(f"expected no {PTBXL_SOURCE} to finetune on: it has no SNOMED codes")
        if self.unit == "source" and not self.valid_fraction + self.test_fraction:
            raise ValueError("expected valid_fraction or test_fraction above 0 with unit: source")
        if (self.unit == "source") != (self.holdout_source is not None):
            raise ValueError("expected holdout_source with unit: source, and only then")
        if self.ptbxl_folds and self.unit in ("segment", "source"):
            raise ValueError(f"expected ptbxl_folds: false with unit: {self.unit}")
        if self.holdout_source and self.holdout_source not in self.finetune_sources:
            raise ValueError("expected holdout_source to be one of finetune_sources")
        return self


def split_segments(
    manifest: pd.DataFrame,
    segments: pd.DataFrame,
    params: SplitParams,
    listed: Mapping[str, Set[str]] | None,
) -> pd.DataFrame:
    """Return the split, one row a segment that takes part in anything, sorted.

    `segments` has source, record_id, segment of every segment; `listed` is what `split.file` says:
    record keys of the parts pretrain, train, valid and test.
    """
    table = segments.merge(manifest, on=["source", "record_id"], how="left", validate="m:1")
    table["record"] = table["source"] + "/" + table["record_id"]
    _require_sources(table, params)
    table["finetune"] = _listed_parts(table, listed) if listed else _hashed_parts(table, params)
    table["identify"] = _identify_parts(table, manifest, params)
    if listed and listed["pretrain"]:
        table["pretrain"] = table["record"].isin(listed["pretrain"]).astype(int)
    else:
        table["pretrain"] = _may_pretrain(table, params).astype(int)
    takes_part = (table[["finetune", "identify"]] != "").any(axis=1) | (table["pretrain"] == 1)
    ordered = table[takes_part].sort_values(["source", "record_id", "segment"], ignore_index=True)
    return ordered[list(SPLIT_COLUMNS)]


def part_of(key: str, seed: int, valid_fraction: float, test_fraction: float) -> str:
    """Return the part of a key: test first, then valid, then train, along a hash from 0 to 1."""
    place = seed_of("split", seed, key) / 2**63
    if place < test_fraction:
        return "test"
    return "valid" if place < test_fraction + valid_fraction else "train"


def _hashed_parts(table: pd.DataFrame, params: SplitParams) -> pd.Series:
    valid, test = params.valid_fraction, params.test_fraction
    keys = table["patient"]
    if params.unit == "recording":
        keys = table["record"]
    if params.unit == "segment":
        keys = table["record"] + "/" + table["segment"].astype(str)
    if params.unit == "source":
        # the source left out is all valid and test, in the same proportion
        valid, test = valid / (valid + test), test / (valid + test)
    part = {key: part_of(key, params.seed, valid, test) for key in keys.unique().tolist()}
    parts = _looked_up(keys, part)
    if params.unit == "source":
        parts = parts.where(table["source"] == params.holdout_source, "train")
    if params.ptbxl_folds:
        folds = [_PTBXL_PARTS.get(fold, "train") for fold in table["fold"].fillna(0)]
        parts = parts.where(table["fold"].isna(), folds)
    return parts.where(table["source"].isin(params.finetune_sources), "")


def _listed_parts(table: pd.DataFrame, listed: Mapping[str, Set[str]]) -> pd.Series:
    part = {record: name for name in ("train", "valid", "test") for record in listed[name]}
    return _looked_up(table["record"], part)


def _looked_up(keys: pd.Series, part: Mapping[str, str]) -> pd.Series:
    """Return the part of each key, "" where there is none."""
    return pd.Series([part.get(key, "") for key in keys.tolist()], index=keys.index, dtype="str")


def _identify_parts(table: pd.DataFrame, manifest: pd.DataFrame, params: SplitParams) -> pd.Series:
    """Mark a known patient's first recording gallery, the second probe; train is nobody of them."""
    known = manifest[manifest["patient_kind"] == PTBXL_PATIENT].sort_values("ecg_id")
    known = known[known["patient"].duplicated(keep=False)]
    rank = known.groupby("patient").cumcount()
    names = known["source"] + "/" + known["record_id"]
    part = dict.fromkeys(names[rank == 0], "gallery") | dict.fromkeys(names[rank == 1], "probe")
    parts = _looked_up(table["record"], part)
    free = ~table["patient"].isin(known["patient"])
    return parts.mask(free & table["source"].isin(params.pretrain_sources), "train")


def _may_pretrain(table: pd.DataFrame, params: SplitParams) -> pd.Series:
    """Return which segments may be pretrained on: nothing that is held out, unless asked for."""
    may = table["source"].isin(params.pretrain_sources)
    if params.exclude_identify_from_pretraining:
        tested = table["identify"].isin(["gallery", "probe"])
        may &= ~table["patient"].isin(table.loc[tested, "patient"])
    if params.heldout_in_pretraining:
        return may
    held_out = table["finetune"].isin(["valid", "test"])
    if params.unit == "segment":
        return may & ~held_out
    if params.unit == "source":
        may &= table["source"] != params.holdout_source
    return may & ~table["patient"].isin(table.loc[held_out, "patient"])


def _require_sources(table: pd.DataFrame, params: SplitParams) -> None:
    """Raise BadSplit when none of the sources is there, or the one to be left out is not."""
    there = set(table["source"].unique().tolist())
    if params.holdout_source and params.holdout_source not in there:
        raise BadSplit(
            f"params.yaml: split.holdout_source: expected one of {', '.join(sorted(there))}, "
            f"found {params.holdout_source}"
        )
    for name in ("finetune_sources", "pretrain_sources"):
        if there.isdisjoint(getattr(params, name)):
            raise BadSplit(
                f"params.yaml: split.{name}: expected one of {', '.join(sorted(there))}, "
                f"found {', '.join(getattr(params, name))}"
            )


def require_parts(split: pd.DataFrame) -> None:
    """Raise BadSplit when a part that later stages need is empty."""
    counts = {part: int(np.sum(split["finetune"] == part)) for part in ("train", "valid", "test")}
    counts["pretrain"] = int(split["pretrain"].sum())
    empty = [part for part, count in counts.items() if not count]
    if empty:
        raise BadSplit(
            f"expected segments in every part, found none in {', '.join(empty)} ({counts}); "
            "change split.valid_fraction, split.test_fraction, split.seed or the sources"
        )
