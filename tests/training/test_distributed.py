"""Processes that share an update agree on it, whatever one of them lacks."""

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from ecg_core import losses
from ecg_core.device import CommonParams
from ecg_core.params import read_section
from ecg_core.refusal import Refusal
from ecg_core.training import distributed, processes
from ecg_core.training.cmsc import Contrasted, bring_nothing, cmsc_of_targets
from ecg_core.training.distributed import Share, sum_shares
from ecg_core.training.loop import train
from ecg_core.training.objectives import CriterionParams, PretrainObjective
from side_by_side import together
from tests.training.test_loop import Line, Linear, training

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
TEMPERATURE, EPS = 0.1, 1e-8


def vectors(pairs: int, first_recording: int) -> Contrasted:
    """Return pairs of recordings of their own, counted for 10 targets each."""
    generator = torch.Generator().manual_seed(first_recording)
    recording = torch.arange(first_recording, first_recording + pairs).repeat_interleave(2)
    segment = torch.tensor([0, 1]).repeat(pairs)
    return Contrasted(
        torch.randn(2 * pairs, 5, generator=generator), recording, segment, 10 * pairs
    )


def test_gathered_cmsc_is_that_of_one_process_which_holds_all_in_value_and_gradient() -> None:
    parts = vectors(3, 0), vectors(2, 100)

    def work(rank: int) -> tuple[float, list[list[float]]]:
        own = parts[rank]._replace(pooled=parts[rank].pooled.clone().requires_grad_())
        total = cmsc_of_targets(own, TEMPERATURE, EPS, gather=True)
        total.backward()
        assert own.pooled.grad is not None
        return float(total.detach()), own.pooled.grad.tolist()

    (first, first_grad), (second, second_grad) = together(2, work)
    pooled, recording, segment = (torch.cat([parts[0][i], parts[1][i]]) for i in range(3))
    pooled.requires_grad_()
    whole = losses.cmsc(pooled, recording, segment, TEMPERATURE, EPS) * 50
    whole.backward()
    assert first + second == pytest.approx(float(whole.detach()), rel=1e-6)
    torch.testing.assert_close(torch.tensor(first_grad + second_grad), pooled.grad)
    alone = cmsc_of_targets(parts[0], TEMPERATURE, EPS, gather=False)
    assert first != pytest.approx(float(alone), rel=1e-3)


def test_a_process_without_a_micro_batch_changes_nothing_of_the_others_cmsc() -> None:
    def work(rank: int) -> float:
        if rank == 1:
            bring_nothing()
            return 0.0
        return float(cmsc_of_targets(vectors(3, 0), TEMPERATURE, EPS, gather=True))

    alone = cmsc_of_targets(vectors(3, 0), TEMPERATURE, EPS, gather=False)
    assert together(2, work) == [pytest.approx(float(alone)), 0.0]


def test_one_process_says_that_it_has_nothing_to_gather(caplog: pytest.LogCaptureFixture) -> None:
    criterion = read_section("criterion", CriterionParams, PARAMS)
    caplog.set_level("INFO")
    for gather in (False, True):
        gathering = criterion.model_copy(update={"gather": gather})
        PretrainObjective(lambda *_: None, lambda update: 1.0, gathering)
    assert [record.message for record in caplog.records] == [
        "criterion.gather: there is one process; CMSC stays within a micro-batch"
    ]


def test_a_gradient_that_one_process_has_counts_and_one_that_none_has_stays_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distributed, "BUCKET_NUMBERS", 4)  # so that they go in several exchanges

    def work(rank: int) -> list[list[float] | None]:
        both, one, none, big = (nn.Parameter(torch.zeros(n)) for n in (3, 3, 3, 9))
        both.grad = torch.full((3,), rank + 1.0)
        big.grad = torch.arange(9.0)
        if rank == 1:
            one.grad = torch.full((3,), 5.0)
        sum_shares(Share(), [both, one, none, big])
        return [None if p.grad is None else p.grad.tolist() for p in (both, one, none, big)]

    expected = [[3.0] * 3, [5.0] * 3, None, [2.0 * n for n in range(9)]]
    assert together(2, work) == [expected, expected]


def test_a_nan_in_one_process_ends_all_with_its_own_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(rank: int) -> None:
        model = Line()
        # micro-batch 2 of the first update, which belongs to the second process
        train(training(tmp_path, monkeypatch, model=model, objective=Linear(model, bad=2.0)))

    for said in together(2, work):
        assert "NonFiniteLoss: update 0 (epoch 1)" in said
        assert said.endswith("recordings: n1")


def test_two_processes_go_through_the_loop_as_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(rank: int) -> list[dict[str, float]]:
        states = {} if rank == 0 else {"states": None}
        return train(training(tmp_path / str(rank), monkeypatch, **states))

    alone = train(training(tmp_path / "alone", monkeypatch))
    first, second = together(2, work)
    assert first == alone
    assert second == []


def test_the_death_of_a_process_is_noticed_at_once() -> None:
    def work(rank: int) -> list[int]:
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return distributed.everyones(rank)

    said, died = together(2, work)
    assert died == "died"
    assert "PeerLost: process 0 of 2" in said


@pytest.fixture
def common() -> CommonParams:
    return read_section("common", CommonParams, PARAMS)


@pytest.mark.parametrize(
    ("wanted", "gpus", "micro_batches", "started", "said"),
    [
        ("auto", 0, 4, None, "4 micro-batches an update, on 1 process (auto, 0 GPUs), 4 in turn"),
        ("auto", 2, 4, 2, "4 micro-batches an update, on 2 processes (auto, 2 GPUs), 2 in turn"),
        ("auto", 8, 1, None, "1 micro-batch an update, on 1 process"),
        (2, 0, 3, 2, "3 micro-batches an update, on 2 processes (2, 0 GPUs), 2 in turn"),
        (5, 0, 2, 2, "on 2 processes (5, 0 GPUs; more than micro-batches would idle), 1 in turn"),
    ],
)
def test_as_many_processes_are_started_as_have_something_to_do_and_it_is_said(
    common: CommonParams,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wanted: int,
    gpus: int,
    micro_batches: int,
    started: int | None,
    said: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    asked: list[int] = []

    def run(stage: str, number: int) -> int:
        asked.append(number)
        return 7

    monkeypatch.setattr(processes, "_run", run)
    world = processes.DistributedParams(distributed_world_size=1, processes=wanted)
    caplog.set_level("INFO")
    if started is None:
        assert processes.join("any", common, world, (micro_batches,)).type == "cpu"
        assert asked == []
    else:
        with pytest.raises(SystemExit, match="7"):
            processes.join("any", common, world, (1, micro_batches))
        assert asked == [started]
    assert said in caplog.text


def test_one_micro_batch_in_one_process_is_not_worth_a_word(
    common: CommonParams, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    world = processes.DistributedParams(distributed_world_size=1, processes="auto")
    processes.join("any", common, world, (1,))
    assert caplog.text == ""


def test_more_processes_than_gpus_or_than_micro_batches_under_torchrun_are_refused(
    common: CommonParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    world = processes.DistributedParams(distributed_world_size=4, processes=3)
    with pytest.raises(Refusal, match="expected at most 2, one a GPU, found 3"):
        processes.join("any", common, world, (4,))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(Refusal, match=r"torchrun: expected at most 4 processes.*found 8"):
        processes.join("any", common, world, (4,))
