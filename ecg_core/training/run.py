"""What every training does around its loop: its state, the lock on it, its tracker."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from torch import nn

from ecg_core.device import CommonParams
from ecg_core.params import Section
from ecg_core.training.checkpoint import (
    CheckpointParams,
    StateFolder,
    code_of,
    identity,
    state_root,
)
from ecg_core.training.contract import Feed, Limits, Progress, Row, Training
from ecg_core.training.distributed import PATIENCE_SECONDS, PeerLost, leave, rank
from ecg_core.training.history import write_history
from ecg_core.training.kept_models import KeptModels
from ecg_core.training.loop import train
from ecg_core.training.objectives import Objective
from ecg_core.training.optimizer import Adam
from ecg_core.training.schedule import LearningRate


@runtime_checkable
class Tracker(Protocol):
    """Whoever is told how a run goes (tracking.Run)."""

    def log_metrics(self, row: dict[str, float], step: int) -> None: ...
    def log_artifacts(self, paths: Sequence[Path]) -> None: ...


class TrainingRun(NamedTuple):
    """What a training stage works with."""

    stage: str
    states: StateFolder | None
    kept: KeptModels
    tracker: Tracker

    def train(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: Adam,
        learning_rate: LearningRate,
        feed: Feed,
        common: CommonParams,
        limits: Limits,
        saving: CheckpointParams,
        end_of_epoch: Callable[[int, Row, Progress], Row],
    ) -> list[Row]:
        """Train on the model's own device and return the history, in the first process alone."""
        training = Training(
            model=model,
            objective=objective,
            optimizer=optimizer,
            learning_rate=learning_rate,
            feed=feed,
            device=next(model.parameters()).device,
            common=common,
            limits=limits,
            states=self.states,
            save_interval_minutes=saving.save_interval_minutes,
            end_of_epoch=end_of_epoch,
            log_metrics=self.tracker.log_metrics,
        )
        try:
            rows = train(training)
            leave()
        except PeerLost:
            time.sleep(PATIENCE_SECONDS)  # the lost one says why, and has this process ended
            raise
        return rows

    def write_history(self, rows: Sequence[Row], metrics: Row | None = None) -> None:
        """Write the stage's reports: history and, of the last row or of `metrics`, metrics."""
        write_history(reports_of(self.stage), self.stage, rows, metrics)


def reports_of(stage: str) -> Path:
    """Return the folder of a stage's reports."""
    return Path("reports") / stage


@contextmanager
def training_run(
    stage: str,
    sections: Sequence[Section],
    data: Sequence[Path],
    save: Callable[[Path], None],
    max_epoch: int,
    tracker: Tracker,
) -> Iterator[TrainingRun]:
    """Hold the state that belongs to these parameters, this code and these data files.

    Of several processes the first one holds it; the others have none, and write nothing.
    """
    if rank() > 0:
        yield TrainingRun(stage, None, KeptModels(state_root(), save), tracker)
        return
    states = StateFolder(stage, identity(sections, code_of(stage), data))
    with states.locked():
        states.forget_if_finished(max_epoch)
        yield TrainingRun(stage, states, KeptModels(states.path, save), tracker)
        states.mark_finished(max_epoch)
        tracker.log_artifacts([reports_of(stage)])
