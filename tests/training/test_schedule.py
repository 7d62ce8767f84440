"""Learning rates, against the formulas of method.md 5.5 written out."""

import math

import pytest

from ecg_core.params import BadParams
from ecg_core.training.schedule import ScheduleParams, fixed, learning_rate, tri_stage


def test_fixed_is_constant_without_warm_up() -> None:
    rate = fixed((5e-5,), 0, None, 0.1)
    assert {rate(update, epoch) for update in (0, 10, 10**6) for epoch in (1, 200)} == {5e-5}


def test_warm_up_rises_linearly_and_never_starts_at_zero() -> None:
    rate = fixed((1e-3,), 4, None, 0.1)
    assert [rate(update, 1) for update in range(6)] == pytest.approx(
        [2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3, 1e-3]
    )


def test_a_list_of_rates_counts_by_epoch_and_its_last_entry_goes_on() -> None:
    rate = fixed((3.0, 2.0), 0, None, 0.1)
    assert [rate(0, epoch) for epoch in (1, 2, 3)] == [3.0, 2.0, 2.0]


def test_annealing_shrinks_the_last_rate_every_epoch() -> None:
    rate = fixed((1.0,), 0, 3, 0.1)
    assert [rate(0, epoch) for epoch in (2, 3, 4)] == pytest.approx([1.0, 0.1, 0.01])


def test_tri_stage_warms_up_holds_decays_and_stays() -> None:
    # 10 updates in 2, 2 and 5: int() of 2.5, 2.5 and 5
    rate = tri_stage(1e-3, 10, (0.25, 0.25, 0.5), 0.01, 0.05)
    assert rate(0, 1) == pytest.approx(1e-5)
    assert rate(1, 1) == pytest.approx((1e-5 + 1e-3) / 2)
    assert rate(2, 1) == rate(3, 1) == 1e-3
    decay = [1e-3 * math.exp(math.log(0.05) / 5 * step) for step in range(6)]
    assert [rate(4 + step, 1) for step in range(6)] == pytest.approx(decay)
    assert rate(9, 1) == pytest.approx(5e-5)
    assert rate(100, 1) == pytest.approx(5e-5)


def test_tri_stage_without_a_length_is_refused() -> None:
    params = ScheduleParams.model_validate_json(
        '{"_name": "tri_stage", "warmup_updates": 0, "force_anneal": null, "lr_shrink": 0.1,'
        '"phase_ratio": [0.1, 0.4, 0.5], "init_lr_scale": 0.01, "final_lr_scale": 0.01}'
    )
    with pytest.raises(BadParams, match="max_update"):
        learning_rate(params, (1.0,), 0)
