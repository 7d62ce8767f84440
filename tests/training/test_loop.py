"""The loop's arithmetic, on a model whose gradients can be done by hand."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ecg_core.batches.batch import Batch
from ecg_core.device import CommonParams
from ecg_core.training.checkpoint import StateFolder
from ecg_core.training.loop import NonFiniteLoss, Progress, Row, Training, train
from ecg_core.training.objectives import MicroResult, TrainingBatch
from ecg_core.training.optimizer import Adam, OptimizationParams

COMMON = CommonParams(
    seed=1,
    device="cpu",
    precision="fp32",
    activation_checkpointing=False,
    threads=1,
    fp16=False,
    no_progress_bar=True,
)


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([2.0]))


class Feed:
    """Micro-batch k holds the number k + 1; two make an update."""

    def updates(self, epoch: int) -> list[Sequence[int]]:
        return [[0, 1], [2]]

    def load(self, batches: Iterable[int], epoch: int) -> Iterator[Batch]:
        for number in batches:
            zero = torch.zeros(1, dtype=torch.int64)
            yield Batch(torch.full((1, 1, 1), number + 1.0), zero, zero, None, (f"n{number}",))


class Linear:
    """loss = slope x number, counted as `number` samples."""

    def __init__(self, model: Line, bad: float | None = None) -> None:
        self.model = model
        self.bad = bad

    def __call__(self, batch: TrainingBatch, update: int, micro: int) -> MicroResult:
        number = batch.source.sum()
        total = (self.model.slope * number).sum()
        if self.bad is not None and float(number) == self.bad:
            total = total * torch.nan
        return MicroResult(total, float(number), {"loss": total.detach(), "n": float(number)})

    def summarise(self, sums: dict[str, float]) -> dict[str, float]:
        return {"loss": sums["loss"] / sums["n"]}


def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Training:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    model = Line()
    settings: dict[str, Any] = {
        "model": model,
        "objective": Linear(model),
        "optimizer": Adam(model.parameters(), (0.9, 0.98), 1e-8, 0.0),
        "learning_rate": lambda update, epoch: 0.1,
        "feed": Feed(),
        "device": torch.device("cpu"),
        "common": COMMON,
        "limits": OptimizationParams(
            max_epoch=2, max_update=0, lr=(0.1,), update_freq=(2,), clip_norm=0.0
        ),
        "states": StateFolder("test", {}),
        "save_interval_minutes": 10.0,
        "end_of_epoch": lambda epoch, row, progress: row,
        "log_metrics": lambda row, step: None,
    }
    return Training(**{**settings, **changes})


def test_the_gradient_is_the_sum_over_micro_batches_over_the_sum_of_sample_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # d(loss)/d(slope) is (1 + 2) / (1 + 2) = 1 in the first update, 3 / 3 = 1 in the second
    rows = train(training(tmp_path, monkeypatch))
    assert [row["gnorm"] for row in rows] == pytest.approx([1.0, 1.0])
    assert [row["updates"] for row in rows] == [2, 4]


def test_history_averages_by_sample_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = train(training(tmp_path, monkeypatch))
    # Adam moves by 0.1 an update while the gradient is constant: slopes 2.0, then 1.9
    assert rows[0]["loss"] == pytest.approx((2.0 * 3 + 1.9 * 3) / 6, abs=1e-5)


def test_max_update_ends_the_run_within_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = OptimizationParams(
        max_epoch=9, max_update=3, lr=(0.1,), update_freq=(2,), clip_norm=0.0
    )
    rows = train(training(tmp_path, monkeypatch, limits=limits))
    assert [row["updates"] for row in rows] == [2, 3]


def test_a_nan_names_the_update_and_the_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Line()
    run = training(tmp_path, monkeypatch, model=model, objective=Linear(model, bad=3.0))
    with pytest.raises(NonFiniteLoss, match=r"update 1 \(epoch 1\).*loss nan.*n2"):
        train(run)


def test_the_task_completes_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def end_of_epoch(epoch: int, row: Row, progress: Progress) -> Row:
        seen.append(epoch)
        return {**row, "extra": 1.0}

    rows = train(training(tmp_path, monkeypatch, end_of_epoch=end_of_epoch))
    assert seen == [1, 2]
    assert [row["extra"] for row in rows] == [1.0, 1.0]
