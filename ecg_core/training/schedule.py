"""Learning rates as functions of the update and the epoch."""

import math
from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

from pydantic import Field, model_validator

from ecg_core.params import BadParams, Section

LearningRate = Callable[[int, int], float]
"""(finished updates, epoch from 1) -> learning rate."""

PhaseRatio = tuple[float, float, float]


class ScheduleParams(Section):
    """Section `lr_scheduler`."""

    name: Literal["fixed", "tri_stage"] = Field(alias="_name")
    warmup_updates: int = Field(ge=0)
    force_anneal: int | None = Field(ge=1)
    lr_shrink: float = Field(gt=0, le=1)
    phase_ratio: PhaseRatio
    init_lr_scale: float = Field(gt=0, le=1)
    final_lr_scale: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _phases_make_a_whole(self) -> "ScheduleParams":
        if min(self.phase_ratio) < 0 or not math.isclose(sum(self.phase_ratio), 1.0):
            raise ValueError(f"phase_ratio to add up to 1, found {list(self.phase_ratio)}")
        return self


def value_of_epoch(values: tuple[float, ...], epoch: int) -> float:
    """Return an epoch's entry of a per-epoch list; the last entry goes on for ever."""
    return values[min(epoch, len(values)) - 1]


def fixed(
    lr: tuple[float, ...], warmup_updates: int, force_anneal: int | None, lr_shrink: float
) -> LearningRate:
    """Return a constant (a value an epoch), after a linear warm-up. method.md 5.5."""

    def rate(update: int, epoch: int) -> float:
        value = value_of_epoch(lr, epoch)
        if force_anneal is not None and epoch >= force_anneal:
            value = lr[-1] * lr_shrink ** (epoch + 1 - force_anneal)
        if warmup_updates and update < warmup_updates:
            value *= (update + 1) / warmup_updates
        return value

    return rate


def tri_stage(
    lr: float,
    max_update: int,
    phase_ratio: PhaseRatio,
    init_lr_scale: float,
    final_lr_scale: float,
) -> LearningRate:
    """Return linear warm-up, hold, exponential decay, then a constant. method.md 5.5."""
    warm, hold, decay = (int(max_update * ratio) for ratio in phase_ratio)

    def rate(update: int, epoch: int) -> float:
        if update < warm:
            return lr * (init_lr_scale + (1 - init_lr_scale) * update / warm)
        if update < warm + hold:
            return lr
        if update <= warm + hold + decay and decay:
            return lr * math.exp(math.log(final_lr_scale) / decay * (update - warm - hold))
        return lr * final_lr_scale

    return rate


def learning_rate(schedule: ScheduleParams, lr: tuple[float, ...], max_update: int) -> LearningRate:
    """Return the schedule that section `lr_scheduler` names; tri_stage needs max_update."""
    if schedule.name == "fixed":
        return fixed(lr, schedule.warmup_updates, schedule.force_anneal, schedule.lr_shrink)
    if not max_update:
        raise BadParams(
            "params.yaml: optimization.max_update: expected at least 1, whose parts the phases of "
            "lr_scheduler tri_stage are, found 0"
        )
    return tri_stage(
        lr[0], max_update, schedule.phase_ratio, schedule.init_lr_scale, schedule.final_lr_scale
    )


@runtime_checkable
class FinetuneSchedule(Protocol):
    """The schedule's keys among section `finetune`'s."""

    @property
    def lr_scheduler(self) -> Literal["fixed", "tri_stage"]: ...
    @property
    def lr(self) -> tuple[float, ...]: ...
    @property
    def max_update(self) -> int: ...
    @property
    def warmup_updates(self) -> int: ...
    @property
    def phase_ratio(self) -> PhaseRatio: ...
    @property
    def init_lr_scale(self) -> float: ...
    @property
    def final_lr_scale(self) -> float: ...


def of_finetuning(params: FinetuneSchedule) -> LearningRate:
    """Return the schedule that section `finetune` names."""
    if params.lr_scheduler == "fixed":
        return fixed(params.lr, params.warmup_updates, None, 1.0)
    phases, init, final = params.phase_ratio, params.init_lr_scale, params.final_lr_scale
    return tri_stage(params.lr[0], params.max_update, phases, init, final)
