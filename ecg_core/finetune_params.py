"""Section `finetune`: flat, under the public configuration's names."""

from typing import Literal

from pydantic import model_validator

from ecg_core.classes import CLASSES
from ecg_core.downstream_params import DownstreamParams, Fraction


class FinetuneParams(DownstreamParams):
    """Section `finetune` (method.md 5.8)."""

    final_dropout: float = Fraction
    pos_weight: tuple[float, ...] | None
    normalize_loss_by: Literal["labels", "positives"]
    best_checkpoint_metric: Literal["loss", "cinc_score"]

    @model_validator(mode="after")
    def _a_weight_for_each_class(self) -> "FinetuneParams":
        if self.pos_weight is not None and len(self.pos_weight) != len(CLASSES):
            raise ValueError(f"pos_weight to have {len(CLASSES)} numbers, one a class")
        return self
