"""Several processes that share an update; in one process every function does nothing."""

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn

from ecg_core.params import Section


class DistributedParams(Section):
    """Section `distributed_training`."""

    distributed_world_size: int = Field(ge=1)

    def micro_batches(self, update_freq: tuple[int, ...]) -> tuple[int, ...]:
        """Return how many micro-batches make an update, by epoch: side by side times in turn."""
        return tuple(self.distributed_world_size * in_turn for in_turn in update_freq)


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def n_processes() -> int:
    """Return how many processes share an update."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_gradients(model: nn.Module) -> None:
    """Add up every parameter's gradient over the processes."""
    if n_processes() == 1:
        return
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)


def sum_values(values: dict[str, float]) -> dict[str, float]:
    """Add up named numbers over the processes; all must bring the same names."""
    if n_processes() == 1:
        return values
    total: Tensor = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(total)
    return dict(zip(values, total.tolist(), strict=True))
