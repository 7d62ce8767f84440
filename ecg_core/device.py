"""Section `common`: where and how exactly the arithmetic is done."""

from typing import Literal

import torch
from pydantic import Field

from ecg_core.params import Section
from ecg_core.refusal import Refusal


class CommonParams(Section):
    """Section `common`."""

    seed: int = Field(ge=0)
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["fp32"]
    threads: int | None = Field(ge=1)
    fp16: Literal[False]
    no_progress_bar: bool


def set_up_device(common: CommonParams) -> torch.device:
    """Fix the number of threads and return the device; refuse cuda where there is none."""
    if common.threads is not None:
        torch.set_num_threads(common.threads)
    available = torch.cuda.is_available()
    if common.device == "cuda" and not available:
        raise Refusal(
            "params.yaml: common.device: expected a machine with a CUDA device for 'cuda', found "
            "none ('auto' takes what there is)"
        )
    torch.backends.cudnn.deterministic = True
    return torch.device("cuda" if available and common.device != "cpu" else "cpu")
