"""The leak report: what finetuning's valid and test segments share with what is trained on."""

from collections.abc import Mapping

import pandas as pd

from ecg_core.splits import FINETUNE_PARTS, IDENTIFY_PARTS, BadSplit

SHARED = ("signal", "recording", "patient")

Leaks = dict[str, dict[str, dict[str, int]]]
"""Held-out part, then what it leaks to, then what is shared: how many of its segments do."""


def leak_report(split: pd.DataFrame, manifest: pd.DataFrame) -> Leaks:
    """Count valid and test segments that share a signal, recording or patient with other parts."""
    table = split.merge(
        manifest[["source", "record_id", "sha256"]], on=["source", "record_id"], validate="m:1"
    )
    table["recording"] = table["source"] + "/" + table["record_id"]
    table = table.rename(columns={"sha256": "signal"})
    for what in SHARED:
        # numbers are compared a hundred times faster than texts
        table[what] = pd.factorize(table[what])[0]
    parts = {part: table[table["finetune"] == part] for part in FINETUNE_PARTS}
    others = {"finetune_train": parts["train"], "pretrain": table[table["pretrain"] == 1]}
    return {
        "valid": _against(parts["valid"], others),
        "test": _against(parts["test"], {**others, "finetune_valid": parts["valid"]}),
    }


def require_no_leak(leaks: Leaks, *, except_pretraining: bool) -> None:
    """Raise BadSplit, with the report, when anything leaks.

    `except_pretraining` is for runs that pretrain on held-out recordings on purpose.
    """
    found = [
        f"  {count} {part} segments share a {what} with {other}"
        for part, others in leaks.items()
        for other, shared in others.items()
        for what, count in shared.items()
        if count and not (except_pretraining and other == "pretrain")
    ]
    if found:
        raise BadSplit(
            "expected no leak from held-out segments, found\n"
            + "\n".join(found)
            + "\n(split.unit: patient keeps a patient's recordings together; only "
            "split.unit: segment may leak, to measure what that does)"
        )


def split_counts(split: pd.DataFrame, leaks: Leaks) -> dict[str, object]:
    """Return the split's metric: each part's size, the leaks, where identify's patients are."""
    parts = {"pretrain": split[split["pretrain"] == 1]}
    parts |= {f"finetune_{part}": split[split["finetune"] == part] for part in FINETUNE_PARTS}
    parts |= {f"identify_{part}": split[split["identify"] == part] for part in IDENTIFY_PARTS}
    tested = set(parts["identify_gallery"]["patient"]) | set(parts["identify_probe"]["patient"])
    shared = {
        name: len(tested & set(parts[name]["patient"])) for name in ("pretrain", "identify_train")
    }
    return {
        "parts": {name: _sizes(rows) for name, rows in parts.items()},
        "leaks": leaks,
        "identify_patients_shared": shared,
    }


def _against(
    held_out: pd.DataFrame, others: Mapping[str, pd.DataFrame]
) -> dict[str, dict[str, int]]:
    return {
        name: {what: int(held_out[what].isin(other[what]).sum()) for what in SHARED}
        for name, other in others.items()
    }


def _sizes(rows: pd.DataFrame) -> dict[str, int]:
    return {
        "segments": len(rows),
        "recordings": len(rows.drop_duplicates(["source", "record_id"])),
        "patients": int(rows["patient"].nunique()),
    }
