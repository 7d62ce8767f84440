"""The one training loop; it knows nothing of ECG."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from tqdm import tqdm

from ecg_core.device import CommonParams
from ecg_core.refusal import Refusal
from ecg_core.seeds import seed_of
from ecg_core.training.checkpoint import StateFolder
from ecg_core.training.clock import Clock, minutes_since
from ecg_core.training.distributed import n_processes, rank, sum_gradients, sum_values
from ecg_core.training.interruption import stop_signal
from ecg_core.training.objectives import Objective, TrainingBatch
from ecg_core.training.optimizer import Adam, scale_and_clip
from ecg_core.training.schedule import LearningRate

log = logging.getLogger(__name__)
Row = dict[str, float]


class NonFiniteLoss(Refusal):
    """A loss or gradient became NaN or infinite; the message says where and on what."""


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
    states: StateFolder
    save_interval_minutes: float
    end_of_epoch: Callable[[int, Row, Progress], Row]
    """Complete an epoch's row: evaluate, keep checkpoints."""
    log_metrics: Callable[[Row, int], None]
    """Tell the tracker of an epoch; speed and memory go nowhere else."""


def train(run: Training) -> list[Row]:
    """Train to the last epoch, from a saved state if there is one, and return the history."""
    progress = _resume(run)
    saved_at = time.monotonic()
    with stop_signal() as stopped:
        while progress.epoch < run.limits.max_epoch and not _updates_are_spent(run, progress):
            epoch = progress.epoch + 1
            clock = Clock()
            run.model.train()
            for micro_batches in _updates_left(run, progress):
                _update(run, progress, epoch, micro_batches)
                clock.count(sum(len(batch.source) for batch in micro_batches))
                if stopped.is_set or minutes_since(saved_at) >= run.save_interval_minutes:
                    saved = _save(run, progress)
                    saved_at = time.monotonic()
                if stopped.is_set:
                    found = "the state is saved" if saved else "the state is not saved"
                    log.warning("stopped by signal %d; %s", stopped.number, found)
                    raise SystemExit(128 + stopped.number)
            speed = clock.row()
            _finish_epoch(run, progress)
            _save(run, progress)
            saved_at = time.monotonic()
            run.log_metrics({**progress.history[-1], **speed}, epoch)
    return progress.history


def _updates_left(run: Training, progress: Progress) -> Iterator[list[TrainingBatch]]:
    """Yield this process's micro-batches of every update that the epoch still has."""
    epoch = progress.epoch + 1
    updates = run.feed.updates(epoch)[progress.updates_in_epoch :]
    if run.limits.max_update:
        updates = updates[: run.limits.max_update - progress.updates]
    mine = [batches[rank() :: n_processes()] for batches in updates]
    loaded = run.feed.load((batch for batches in mine for batch in batches), epoch)
    bar = tqdm(
        mine,
        desc=f"epoch {epoch}/{run.limits.max_epoch}",
        unit="update",
        disable=run.common.no_progress_bar or rank() > 0,
        leave=False,
    )
    for batches in bar:
        yield [next(loaded) for _ in batches]


def _update(
    run: Training, progress: Progress, epoch: int, micro_batches: list[TrainingBatch]
) -> None:
    """Sum gradients over micro-batches and processes, divide by the sample sizes, step."""
    run.optimizer.zero_grad()
    sample_size = 0.0
    sums: dict[str, float] = {}
    for number, batch in enumerate(micro_batches):
        micro = number * n_processes() + rank()
        # dropout draws from torch's own generator: it belongs to the global micro-batch
        torch.manual_seed(seed_of("dropout", run.common.seed, progress.updates, micro))
        result = run.objective(batch.to(run.device), progress.updates, micro)
        _refuse_non_finite(result.total, result.sums, progress, epoch, batch)
        if result.total.requires_grad:
            result.total.backward()
        sample_size += result.sample_size
        for name, value in result.sums.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    sum_gradients(run.model)
    totals = sum_values({"sample_size": sample_size, **sums})
    gnorm = scale_and_clip(
        run.model.parameters(), totals.pop("sample_size") or 1.0, run.limits.clip_norm
    )
    if not math.isfinite(gnorm):
        raise NonFiniteLoss(
            f"update {progress.updates} (epoch {epoch}): expected a finite gradient, found norm "
            f"{gnorm}; recordings: {_names(micro_batches)}"
        )
    lr = run.learning_rate(progress.updates, epoch)
    run.optimizer.step(lr)
    progress.updates += 1
    progress.updates_in_epoch += 1
    for name, value in {**totals, "gnorm": gnorm, "lr": lr}.items():
        progress.sums[name] = progress.sums.get(name, 0.0) + value


def _finish_epoch(run: Training, progress: Progress) -> None:
    """Turn the epoch's sums into a row of history."""
    sums, n = progress.sums, progress.updates_in_epoch
    row: Row = {
        "epoch": float(progress.epoch + 1),
        "updates": float(progress.updates),
        "lr": sums.pop("lr") / n,
        "gnorm": sums.pop("gnorm") / n,
        **run.objective.summarise(sums),
    }
    progress.epoch += 1
    progress.updates_in_epoch = 0
    progress.sums = {}
    completed = run.end_of_epoch(progress.epoch, row, progress)
    # numpy's floats would not come back from a state that holds plain values alone
    progress.history.append({name: float(value) for name, value in completed.items()})


def _save(run: Training, progress: Progress) -> bool:
    if rank() > 0:
        return True
    state = {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict()}
    return run.states.save({**state, **vars(progress)})


def _resume(run: Training) -> Progress:
    state = run.states.load(run.limits.max_epoch)
    if state is None:
        return Progress()
    run.model.load_state_dict(state.pop("model"))
    run.optimizer.load_state_dict(state.pop("optimizer"))
    return Progress(**state)


def _updates_are_spent(run: Training, progress: Progress) -> bool:
    return 0 < run.limits.max_update <= progress.updates


def _names(batches: list[TrainingBatch]) -> str:
    return ", ".join(dict.fromkeys(name for batch in batches for name in batch.names))


def _refuse_non_finite(
    total: torch.Tensor, sums: dict[str, Any], progress: Progress, epoch: int, batch: TrainingBatch
) -> None:
    if bool(torch.isfinite(total)):
        return
    terms = ", ".join(f"{name} {float(v):g}" for name, v in sums.items() if "loss" in name)
    raise NonFiniteLoss(
        f"update {progress.updates} (epoch {epoch}): expected finite losses, found {terms}; "
        f"recordings: {_names([batch])}"
    )
