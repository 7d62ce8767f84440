"""What the processes that share an update tell each other; in one process nothing is exchanged."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ecg_core.refusal import Refusal

T = TypeVar("T")

BUCKET_NUMBERS = 8 * 2**20
"""Numbers in one exchange of gradients: 32 MiB, beyond which larger ones gain nothing."""

PATIENCE_SECONDS = 3.0
"""How long a process waits for the one whose fault it is to speak, and to have it ended."""


class PeerLost(Refusal):
    """Another process of the run is gone; why, is for that process to say."""


@dataclass
class Share:
    """What a process brings to an update beside its gradients, or what all of them bring."""

    sample_size: float = 0.0
    segments: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    has_gradient: list[bool] = field(default_factory=list)
    """Of each parameter."""
    stop: int = 0
    """The signal that asked for an end, 0 for none."""
    refusal: str = ""

    def add(self, other: "Share") -> None:
        """Take in what another process brings."""
        self.sample_size += other.sample_size
        self.segments += other.segments
        for name, value in other.sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        both = self.has_gradient, other.has_gradient
        self.has_gradient = [a or b for a, b in zip(*both, strict=True)]
        self.stop = max(self.stop, other.stop)
        self.refusal = "\n".join(filter(None, dict.fromkeys((self.refusal, other.refusal))))


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def n_processes() -> int:
    """Return how many processes share an update."""
    return dist.get_world_size() if dist.is_initialized() else 1


def everyones(own: T) -> list[T]:
    """Return what each process brings, by rank; all must call. Travels pickled, through the CPU."""
    if n_processes() == 1:
        return [own]
    gathered: list[T] = [own] * n_processes()
    with _together():
        dist.all_gather_object(gathered, own)
    return gathered


def from_first(own: T) -> T:
    """Return what the first process brings; all must call."""
    if n_processes() == 1:
        return own
    box = [own]
    with _together():
        dist.broadcast_object_list(box)
    return box[0]


def sum_shares(own: Share, parameters: Iterable[nn.Parameter]) -> Share:
    """Add up what the processes bring, and their gradients, unless the update is given up.

    A parameter without a gradient in any process keeps none, as in one process: Adam counts the
    steps of each parameter.
    """
    if n_processes() == 1:
        return own
    parameters = list(parameters)
    own.has_gradient = [parameter.grad is not None for parameter in parameters]
    total, *others = everyones(own)
    for other in others:
        total.add(other)
    if not total.stop and not total.refusal:
        with_gradient = zip(parameters, total.has_gradient, strict=True)
        _sum_gradients([parameter for parameter, has_one in with_gradient if has_one])
    return total


def _sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    gradients = [
        parameter.grad if parameter.grad is not None else _zero_gradient(parameter)
        for parameter in parameters
    ]
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        with _together():
            dist.all_reduce(flat)
        pieces = flat.split([gradient.numel() for gradient in bucket])
        for gradient, piece in zip(bucket, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))


def leave() -> None:
    """Wait for the others' last word; then the first process goes on alone, the others end."""
    if n_processes() == 1:
        return
    own_rank = rank()
    everyones(None)
    dist.destroy_process_group()
    if own_rank > 0:
        raise SystemExit(0)


def _zero_gradient(parameter: nn.Parameter) -> Tensor:
    parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield tensors in their order, in lists of up to `BUCKET_NUMBERS` (or one larger tensor)."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET_NUMBERS:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


@contextmanager
def _together() -> Iterator[None]:
    """Tell a broken exchange from a mistake of ours; torch raises RuntimeErrors for it."""
    try:
        yield
    except RuntimeError as error:
        first_line = str(error).partition("\n")[0]
        raise PeerLost(
            f"process {rank()} of {n_processes()}: expected the others, found their connection "
            f"broken ({first_line})"
        ) from error
