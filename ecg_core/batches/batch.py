"""What a model gets at a time."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One micro-batch; rows of a pair follow each other."""

    source: Float[Tensor, "batch lead sample"]
    """Millivolt."""
    recording: Int[Tensor, " batch"]
    """Equal for segments of one recording."""
    segment: Int[Tensor, " batch"]
    """0 or 1, the place within a pair."""
    labels: Float[Tensor, "batch class"] | None
    names: tuple[str, ...]
    """source/record_id:segment of every row, for messages."""
    padding: Bool[Tensor, "batch lead sample"] | None = None

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        if device.type == "cpu":
            return self
        return replace(
            self,
            source=self.source.to(device),
            recording=self.recording.to(device),
            segment=self.segment.to(device),
            labels=None if self.labels is None else self.labels.to(device),
            padding=None if self.padding is None else self.padding.to(device),
        )
