"""Section `task`: which leads a segment has, and which of them are masked."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field, model_validator

from ecg_core.leads import LEADS, lead_positions
from ecg_core.params import Section
from ecg_core.seeds import numpy_generator

LeadChoice = tuple[int | str, ...] | None
Segment = Float[np.ndarray, "lead sample"]


class TaskParams(Section):
    """Section `task`, the public configuration's names."""

    name: Literal["ecg_pretraining"] = Field(alias="_name")
    data: None
    perturbation_mode: tuple[Literal["random_leads_masking"], ...] | None = Field(max_length=1)
    p: tuple[float, ...]
    mask_leads_selection: Literal["random"]
    mask_leads_prob: float = Field(ge=0, le=1)
    normalize: Literal[False]
    enable_padding: Literal[True]
    enable_padding_leads: bool
    leads_to_load: LeadChoice

    @model_validator(mode="after")
    def _leads_and_probabilities(self) -> "TaskParams":
        lead_positions(self.leads_to_load)
        if len(self.p) != 1 or not 0 <= self.p[0] <= 1:
            raise ValueError(f"p to be one probability, found {list(self.p)}")
        return self

    @property
    def n_leads(self) -> int:
        """Rows of a segment that reach the model."""
        return len(LEADS if self.enable_padding_leads else lead_positions(self.leads_to_load))

    @property
    def masks_leads(self) -> bool:
        """Whether random lead masking is on."""
        return bool(self.perturbation_mode)


def select_leads(
    segment: Segment, leads: LeadChoice, pad: bool
) -> Float[np.ndarray, "kept sample"]:
    """Keep the chosen leads; with `pad` the others stay as rows of zeros, else they go."""
    positions = list(lead_positions(leads))
    if not pad:
        return segment[positions]
    padded = np.zeros_like(segment)
    padded[positions] = segment[positions]
    return padded


def draw_lead_mask(
    rng: np.random.Generator, n_leads: int, p: float, mask_leads_prob: float
) -> Bool[np.ndarray, " lead"]:
    """Draw which leads are masked (True), each on its own; all may be. method.md 4.5."""
    if rng.random() > p:
        return np.zeros(n_leads, dtype=bool)
    return rng.random(n_leads) < mask_leads_prob


def mask_leads(segment: Segment, masked: Bool[np.ndarray, " lead"]) -> Segment:
    """Set the masked leads to exactly zero."""
    return np.where(masked[:, None], np.float32(0), segment)


def lead_mask_of(
    task: TaskParams, seed: int, epoch: int, record: str, segment: int, n_leads: int
) -> Bool[np.ndarray, " lead"]:
    """Draw the mask that belongs to one segment in one epoch, whatever batch it stands in."""
    rng = numpy_generator("lead mask", seed, epoch, record, segment)
    return draw_lead_mask(rng, n_leads, task.p[0], task.mask_leads_prob)
