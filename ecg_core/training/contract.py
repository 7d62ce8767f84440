"""What a run consists of, and how far it is."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from ecg_core.device import CommonParams
from ecg_core.training.checkpoint import StateFolder
from ecg_core.training.objectives import Objective, TrainingBatch
from ecg_core.training.optimizer import Adam
from ecg_core.training.schedule import LearningRate

Row = dict[str, float]


@runtime_checkable
class Feed(Protocol):
    """Where micro-batches come from."""

    def updates(self, epoch: int) -> list[Sequence[int]]:
        """Return, for each update of an epoch, the numbers of its micro-batches."""
        ...

    def load(self, batches: Iterable[int], epoch: int) -> Iterator[TrainingBatch]:
        """Load these micro-batches in their order."""
        ...


@dataclass
class Progress:
    """How far a run is; what is saved beside weights and optimizer."""

    epoch: int = 0
    """Finished epochs."""
    updates_in_epoch: int = 0
    updates: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    """Of the epoch that is under way."""
    history: list[Row] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    """What the task keeps, such as its best epoch."""


@runtime_checkable
class Limits(Protocol):
    """How long a run goes on, and how long its gradients may be."""

    @property
    def max_epoch(self) -> int: ...
    @property
    def max_update(self) -> int: ...
    @property
    def clip_norm(self) -> float: ...


@dataclass(frozen=True)
class Training:
    """Everything that one run consists of."""

    model: nn.Module
    objective: Objective
    optimizer: Adam
    learning_rate: LearningRate
    feed: Feed
    device: torch.device
    common: CommonParams
    limits: Limits
    states: StateFolder | None
    """None in every process but the first, which alone writes."""
    save_interval_minutes: float
    end_of_epoch: Callable[[int, Row, Progress], Row]
    """Complete an epoch's row: evaluate, keep checkpoints."""
    log_metrics: Callable[[Row, int], None]
    """Tell the tracker of an epoch; speed and memory go nowhere else."""
