"""Section `common`: where and how exactly the arithmetic is done."""

import ctypes
import functools
import logging
import os
import platform
import sys
from typing import Literal

import torch
from pydantic import Field

from ecg_core.params import Section
from ecg_core.refusal import Refusal

log = logging.getLogger(__name__)
_MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of glibc's malloc.h."""


class CommonParams(Section):
    """Section `common`."""

    seed: int = Field(ge=0)
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    activation_checkpointing: bool
    threads: int | None = Field(ge=1)
    fp16: Literal[False]
    no_progress_bar: bool


@functools.cache
def cpu_multiplies_bf16() -> bool:
    """Return whether this processor has instructions for products of bf16 numbers."""
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def return_memory_at_once() -> None:
    """Have glibc give each block above 1 MB back when it is freed, not keep it for later.

    For who asks for little memory: half a GiB less of the base model's holes, a tenth more time.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 2**20)


def set_up_device(common: CommonParams) -> torch.device:
    """Fix the number of threads and return the device; refuse cuda where there is none.

    Of several processes on a machine, as torchrun numbers them, each takes a GPU of its own.
    """
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if common.threads is not None:
        torch.set_num_threads(common.threads)
    elif beside > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // beside))
    available = torch.cuda.is_available()
    if common.device == "cuda" and not available:
        raise Refusal(
            "params.yaml: common.device: expected a machine with a CUDA device for 'cuda', found "
            "none ('auto' takes what there is)"
        )
    torch.backends.cudnn.deterministic = True
    on_gpu = available and common.device != "cpu"
    emulates = common.precision == "bf16" and not on_gpu and not cpu_multiplies_bf16()
    if emulates:
        log.info(
            "common.precision: bf16: this processor has no such products; they are computed in "
            "fp32 from rounded numbers: the same arithmetic, no faster than fp32"
        )
    if emulates or (common.activation_checkpointing and not on_gpu):
        return_memory_at_once()
    if on_gpu and beside > 1:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return torch.device("cuda" if on_gpu else "cpu")
