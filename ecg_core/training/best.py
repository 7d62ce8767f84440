"""Both rules by which finetuning's best epoch is chosen, recorded in one run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecg_core.training.kept_models import KeptModels

RULES = {"loss": ("valid_loss", -1.0), "cinc_score": ("valid_cinc_segment", 1.0)}
"""Column of history and sign: the loss falls, the score (on segments, as in the public code) rises.

method.md 5.8; of equal epochs the first counts.
"""


def keep_best(kept: KeptModels, best: dict[str, Any], row: Mapping[str, float], epoch: int) -> None:
    """Keep the model by every rule under which this epoch beats all before; `best` remembers."""
    for rule, (column, sign) in RULES.items():
        value = float(row[column])
        if rule not in best or sign * value > sign * best[rule]["value"]:
            best[rule] = {"value": value, "epoch": epoch}
            kept.keep(f"best_{rule}", epoch)


def hand_over_best(
    kept: KeptModels, rows: list[dict[str, float]], rule: str, folder: Path
) -> dict[str, float]:
    """Copy both best models, and the chosen one as `model.safetensors`; return its epoch's row."""
    for name, (column, sign) in RULES.items():
        # the first of equal epochs, as in keep_best
        epoch, row = max(enumerate(rows, start=1), key=lambda item: sign * item[1][column])
        kept.hand_over(f"best_{name}", epoch, folder / f"best_{name}.safetensors")
        if name == rule:
            kept.hand_over(f"best_{name}", epoch, folder / "model.safetensors")
            chosen = row
    return {**chosen, "best_epoch": chosen["epoch"]}
