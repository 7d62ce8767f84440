"""Section `identify`: patient identification, flat, under the public configuration's names."""

from typing import Literal

from pydantic import Field

from ecg_core.downstream_params import DownstreamParams


class IdentifyParams(DownstreamParams):
    """Section `identify` (method.md 3.8, 5.9)."""

    scale: float = Field(gt=0)
    margin: float = Field(ge=0, lt=3.14)
    crop: bool
    lead_sets: tuple[Literal[12, 6, 3, 2, 1], ...]
    bootstrap: int = Field(ge=1)
    bootstrap_seed: int = Field(ge=0)
