"""`make estimate`: counts by hand, arithmetic by hand, and the command at demo scale."""

import dataclasses

import numpy as np
import pytest

from benchmarks import estimate, published
from benchmarks.estimate import Measured, Work

GIB = 2**30


@pytest.fixture
def config(monkeypatch):
    monkeypatch.chdir(estimate.overlay_values.__globals__["FOLDER"].parent)
    return estimate.read_configuration("full paper200")


def _with(config, section, **changes):
    changed = getattr(config, section).model_copy(update=changes)
    return dataclasses.replace(config, **{section: changed})


def test_the_two_configurations_are_the_report_s_and_the_paper_s(config):
    report = estimate.read_configuration("full")
    assert (report.limits.max_epoch, config.limits.max_epoch) == (55, 200)
    assert (report.dataset.batch_size, config.dataset.batch_size) == (16, 128)
    assert report.world.micro_batches(report.limits.update_freq) == (2,)
    assert config.world.micro_batches(config.limits.update_freq) == (8,)
    assert report.model == config.model
    assert report.model.encoder_layers == 12


def test_work_is_counted_as_the_stages_count(config):
    """100 recordings of 4 segments to pretrain on are 200 pairs: 25 batches of 8, 4 updates."""
    lengths = {"ningbo": np.array([10_000]), "georgia": np.array([5000, 2500])}
    manifest = published.made_up_manifest({"ningbo": 100, "georgia": 40}, lengths)
    config = _with(config, "split", finetune_sources=("georgia",), pretrain_sources=("ningbo",))
    config = _with(config, "dataset", batch_size=8)
    config = _with(config, "limits", max_epoch=3)
    config = _with(config, "finetune", max_epoch=2, batch_size=16, update_freq=(1,))
    work = estimate.count_work(config, manifest)
    assert (work.recordings, work.segments, work.pairs) == (140, 460, 200)
    # 25 micro-batches by 8: updates of 8, 8, 8 and 1; two devices take 4 + 4 + 4 + 1 turns
    assert (work.micro_batches, work.updates) == (25, 12)
    assert work.turns == {1: 75, 2: 39, 4: 21, 8: 12}
    assert work.train + work.scored == 60
    assert work.finetune_updates == 2 * -(-work.train // 16) or work.train % 16 > 8


def test_an_upper_number_of_updates_ends_the_count(config):
    manifest = published.made_up_manifest({"cpsc_2018": 800}, {"cpsc_2018": np.array([5000])})
    config = _with(config, "dataset", batch_size=8)
    config = _with(config, "limits", max_epoch=50, max_update=7)
    work = estimate.count_work(config, manifest)
    assert (work.updates, work.turns[1]) == (7, 56)


def test_patients_with_a_second_recording_are_left_to_identification(config):
    manifest = published.made_up_manifest(
        {"ptb-xl": 30, "georgia": 300},
        {"ptb-xl": np.array([5000]), "georgia": np.array([5000])},
        {"ptb-xl": 20},
    )
    config = _with(config, "split", finetune_sources=("georgia",), pretrain_sources=("ptb-xl",))
    assert estimate.count_work(config, manifest).pairs == 10


WORK = Work(
    recordings=1000,
    segments=2000,
    pairs=640,
    micro_batches=40,
    updates=100,
    turns={1: 200, 2: 100, 4: 100, 8: 100},
    train=320,
    scored=64,
    finetune_updates=50,
)
MEASURED = Measured(
    rows=16,
    micro_seconds=2.0,
    update_seconds=0.5,
    forward_seconds=0.25,
    peak_bytes=5 * GIB,
    start_bytes=GIB // 2,
    parameters=GIB // 8,
    learning=GIB // 16,
    share=0.9,
)


def test_hours_are_turns_times_micro_batches_plus_updates():
    # 640 pairs in 40 micro-batches are 32 segments each, twice the measured 16: 4 s
    assert estimate.pretraining_seconds(WORK, MEASURED, 1) == 200 * 4.0 + 100 * 0.5
    assert estimate.pretraining_seconds(WORK, MEASURED, 2) == 100 * 4.0 + 100 * 0.5
    # an epoch: 320 / 16 x 2 s and 64 / 16 x 0.25 s
    assert estimate.finetuning_seconds(WORK, MEASURED, 3) == 3 * (40.0 + 1.0) + 50 * 0.5


def test_memory_grows_with_the_rows_above_weights_and_moments():
    # 0.5 to start, 0.5 of weights, 0.5 of moments: 3.5 of 5 GiB belong to 16 rows
    assert estimate.peak_bytes(MEASURED, 16) == 5 * GIB
    assert estimate.peak_bytes(MEASURED, 32) == 8.5 * GIB
    assert estimate.state_bytes(MEASURED) == GIB


def test_disk_is_what_the_store_holds(config):
    assert estimate.store_bytes(WORK, config) == 2000 * 12 * 2500 * 2 + 1000 * 12 * 4
    lengths = dict.fromkeys(published.RECORDINGS, np.array([4000, 6000]))
    ten_seconds = 88_253 - 516 - 74 + 21_799
    raw = 24 * (ten_seconds * 5000 + 516 * 115_174 + 74 * 462_600)
    assert estimate.raw_bytes(lengths) == pytest.approx(raw)


def test_a_busy_machine_is_named_where_the_hours_stand(config):
    busy = dataclasses.replace(MEASURED, share=0.4)
    assert "BUSY" not in estimate.report(config, WORK, MEASURED, MEASURED, 1.0)
    assert "BUSY: the steps had 40%" in estimate.report(config, WORK, MEASURED, busy, 1.0)


def test_the_published_numbers_add_up_to_the_challenge_s():
    assert sum(published.RECORDINGS.values()) == 88_253


def test_the_command_says_what_was_measured_calculated_and_assumed(config, monkeypatch, capsys):
    monkeypatch.setattr(
        published,
        "RECORDINGS",
        {"cpsc_2018": 60, "georgia": 60, "ptb": 1, "st_petersburg_incart": 0, "ptb-xl": 20},
    )
    estimate.main(["--configurations", "", "--steps", "1", "--pairs", "2"])
    told = capsys.readouterr().out
    for word in ("measured", "calculated", "assumed", "2 pairs", "4 segments", "140 recordings"):
        assert word in told
    assert "55 epochs" in told
