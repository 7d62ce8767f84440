"""The one training loop; it knows nothing of ECG."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tqdm import tqdm

from ecg_core.refusal import Refusal
from ecg_core.seeds import seed_of
from ecg_core.training.clock import Clock, minutes_since
from ecg_core.training.contract import Progress, Row, Training
from ecg_core.training.distributed import (
    PeerLost,
    Share,
    everyones,
    from_first,
    n_processes,
    rank,
    sum_shares,
)
from ecg_core.training.interruption import Stop, stop_signal
from ecg_core.training.objectives import Gathering, MicroResult, TrainingBatch
from ecg_core.training.optimizer import scale_and_clip

log = logging.getLogger(__name__)


class NonFiniteLoss(Refusal):
    """A loss or gradient became NaN or infinite; the message says where and on what."""


def train(run: Training) -> list[Row]:
    """Train to the last epoch, from a saved state if there is one, and return the history.

    At a signal the update under way is given up in all processes, the state after the one before
    is saved, and SystemExit is raised. The history is whole in the first process only.
    """
    progress = _resume(run)
    saved_at = time.monotonic()
    with stop_signal() as stopped, _leaving_quietly(stopped):
        while progress.epoch < run.limits.max_epoch and not _updates_are_spent(run, progress):
            epoch = progress.epoch + 1
            clock = Clock()
            run.model.train()
            for turns in _updates_left(run, progress):
                share = _gradients(run, progress, epoch, turns, stopped)
                if share.stop:
                    saved = "saved" if _save(run, progress) else "not saved"
                    log.warning("stopped by signal %d; the state is %s", share.stop, saved)
                    raise SystemExit(128 + share.stop)
                _step(run, progress, epoch, share, turns)
                clock.count(share.segments)
                if minutes_since(saved_at) >= run.save_interval_minutes:
                    _save(run, progress)
                    saved_at = time.monotonic()
            speed = clock.row()
            _finish_epoch(run, progress)
            _save(run, progress)
            saved_at = time.monotonic()
            if rank() == 0:
                run.log_metrics({**progress.history[-1], **speed}, epoch)
    return progress.history


@contextmanager
def _leaving_quietly(stopped: Stop) -> Iterator[None]:
    """Leave without a word where the others have left before, at the same signal."""
    try:
        yield
    except PeerLost:
        if stopped.is_set:
            raise SystemExit(128 + stopped.number) from None
        raise


def _updates_left(run: Training, progress: Progress) -> Iterator[list[TrainingBatch | None]]:
    """Yield this process's micro-batches of every update that the epoch still has.

    Every process has as many turns; None is a turn for which there is no micro-batch left.
    """
    epoch = progress.epoch + 1
    updates = run.feed.updates(epoch)[progress.updates_in_epoch :]
    if run.limits.max_update:
        updates = updates[: run.limits.max_update - progress.updates]
    mine = [batches[rank() :: n_processes()] for batches in updates]
    loaded = run.feed.load((batch for batches in mine for batch in batches), epoch)
    bar = tqdm(
        updates,
        desc=f"epoch {epoch}/{run.limits.max_epoch}",
        unit="update",
        disable=run.common.no_progress_bar or rank() > 0,
        leave=False,
    )
    for batches in bar:
        turns = range(rank(), rank() + len(batches), n_processes())
        yield [next(loaded) if number < len(batches) else None for number in turns]


def _gradients(
    run: Training,
    progress: Progress,
    epoch: int,
    turns: Sequence[TrainingBatch | None],
    stopped: Stop,
) -> Share:
    """Sum gradients over micro-batches and processes; return what all processes bring.

    Where one of them was asked to stop, nothing is summed: the update is not made.
    """
    run.optimizer.zero_grad()
    own = Share()
    for turn, batch in enumerate(turns):
        if batch is None or stopped.is_set or own.refusal:
            if isinstance(run.objective, Gathering):
                run.objective.rest()
            continue
        micro = turn * n_processes() + rank()
        # dropout draws from torch's own generator: it belongs to the global micro-batch
        torch.manual_seed(seed_of("dropout", run.common.seed, progress.updates, micro))
        result = run.objective(batch.to(run.device), progress.updates, micro)
        own.refusal = _what_is_not_finite(result, progress, epoch, batch)
        if result.total.requires_grad and not own.refusal:
            result.total.backward()
        sums = {name: float(value) for name, value in result.sums.items()}
        own.add(Share(result.sample_size, len(batch.source), sums))
    own.stop = stopped.number
    share = sum_shares(own, run.model.parameters())
    if share.refusal:
        raise NonFiniteLoss(share.refusal)
    return share


def _step(
    run: Training,
    progress: Progress,
    epoch: int,
    share: Share,
    turns: Sequence[TrainingBatch | None],
) -> None:
    """Divide the summed gradients by the sample sizes and step."""
    gnorm = scale_and_clip(run.model.parameters(), share.sample_size or 1.0, run.limits.clip_norm)
    if not math.isfinite(gnorm):
        raise NonFiniteLoss(
            f"update {progress.updates} (epoch {epoch}): expected a finite gradient, found norm "
            f"{gnorm}; recordings: {', '.join(everyones(_names(turns)))}"
        )
    lr = run.learning_rate(progress.updates, epoch)
    run.optimizer.step(lr)
    progress.updates += 1
    progress.updates_in_epoch += 1
    for name, value in {**share.sums, "gnorm": gnorm, "lr": lr}.items():
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
    if rank() > 0:
        return  # the first process evaluates and remembers
    completed = run.end_of_epoch(progress.epoch, row, progress)
    # numpy's floats would not come back from a state that holds plain values alone
    progress.history.append({name: float(value) for name, value in completed.items()})


def _save(run: Training, progress: Progress) -> bool:
    if run.states is None:
        return True
    state = {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict()}
    return run.states.save({**state, **vars(progress), "processes": n_processes()})


def _resume(run: Training) -> Progress:
    """Return how far a saved state is, and put weights and moments back; the first process reads.

    Without a state all still begin with the first one's weights, to the last digit.
    """
    state = None if run.states is None else run.states.load(run.limits.max_epoch)
    if n_processes() > 1:
        state = from_first(state or _fresh_state(run))
    if state is None:
        return Progress()
    if (before := state.pop("processes")) != n_processes():
        log.warning(
            "the state is of %d processes, now there are %d: the same mathematics (but for "
            "criterion.gather), other last digits",
            before,
            n_processes(),
        )
    run.model.load_state_dict(state.pop("model"))
    run.optimizer.load_state_dict(state.pop("optimizer"))
    return Progress(**state)


def _fresh_state(run: Training) -> dict[str, Any]:
    weights = {name: tensor.cpu() for name, tensor in run.model.state_dict().items()}
    fresh = {"model": weights, "optimizer": run.optimizer.state_dict()}
    return {**fresh, **vars(Progress()), "processes": n_processes()}


def _updates_are_spent(run: Training, progress: Progress) -> bool:
    return 0 < run.limits.max_update <= progress.updates


def _names(batches: Sequence[TrainingBatch | None]) -> str:
    return ", ".join(dict.fromkeys(name for batch in batches if batch for name in batch.names))


def _what_is_not_finite(
    result: MicroResult, progress: Progress, epoch: int, batch: TrainingBatch
) -> str:
    """Return a refusal's words, or none."""
    if bool(torch.isfinite(result.total)):
        return ""
    terms = ", ".join(f"{name} {float(v):g}" for name, v in result.sums.items() if "loss" in name)
    return (
        f"update {progress.updates} (epoch {epoch}): expected finite losses, found {terms}; "
        f"recordings: {_names([batch])}"
    )
