"""CMSC once a target: within a micro-batch, or over those that processes hold side by side."""

from typing import NamedTuple

import torch
from torch import Tensor

from ecg_core import losses
from ecg_core.training.distributed import everyones, n_processes, rank


class Contrasted(NamedTuple):
    """What a process has for CMSC to compare, and how many targets the mean counts for."""

    pooled: Tensor
    recording: Tensor
    segment: Tensor
    targets: int


def cmsc_of_targets(own: Contrasted, temperature: float, eps: float, gather: bool) -> Tensor:
    """Return CMSC times one's own targets; `gather` compares over all processes, which must call.

    Of the others' vectors the values are enough: each process differentiates by its own vectors,
    on behalf of all targets, and the sum over the processes is the whole gradient.
    """
    if not gather or n_processes() == 1:
        contrast = losses.cmsc(own.pooled, own.recording, own.segment, temperature, eps)
        return contrast * own.targets
    every = _gathered(own)
    contrast = losses.cmsc(every.pooled, every.recording, every.segment, temperature, eps)
    return contrast * every.targets - contrast.detach() * (every.targets - own.targets)


def bring_nothing() -> None:
    """Let the others gather in a turn for which this process has no micro-batch."""
    everyones(Contrasted(torch.empty(0), torch.empty(0), torch.empty(0), 0))


def _gathered(own: Contrasted) -> Contrasted:
    """Return all processes' vectors in their order, one's own among them with its gradient."""
    values = Contrasted(
        own.pooled.detach().cpu(), own.recording.cpu(), own.segment.cpu(), own.targets
    )
    parts = everyones(values)
    parts[rank()] = own
    parts = [part for part in parts if part.targets]
    device = own.pooled.device
    return Contrasted(
        pooled=torch.cat([part.pooled.to(device) for part in parts]),
        recording=torch.cat([part.recording.to(device) for part in parts]),
        segment=torch.cat([part.segment.to(device) for part in parts]),
        targets=sum(part.targets for part in parts),
    )
