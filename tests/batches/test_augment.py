"""Lead selection and random lead masking."""

import numpy as np
import pytest

from ecg_core.batches.augment import (
    TaskParams,
    draw_lead_mask,
    lead_mask_of,
    mask_leads,
    select_leads,
)
from ecg_core.params import read_yaml

SEGMENT = np.arange(12 * 5, dtype=np.float32).reshape(12, 5) + 1


def task(**changes: object) -> TaskParams:
    import json

    return TaskParams.model_validate_json(json.dumps({**read_yaml()["task"], **changes}))


def test_padding_leads_keeps_the_place_of_the_chosen_ones() -> None:
    kept = select_leads(SEGMENT, ("II", 7), pad=True)
    assert kept.shape == (12, 5)
    assert np.array_equal(kept[[1, 7]], SEGMENT[[1, 7]])
    assert not kept[[0, 2, 3, 4, 5, 6, 8, 9, 10, 11]].any()


def test_without_padding_only_the_chosen_leads_are_left() -> None:
    assert np.array_equal(select_leads(SEGMENT, ("V2", "I"), pad=False), SEGMENT[[7, 0]])


def test_all_twelve_leads_listed_or_padded_change_nothing() -> None:
    # the null suspects of the study
    for leads in (None, tuple(range(12))):
        for pad in (True, False):
            assert np.array_equal(select_leads(SEGMENT, leads, pad), SEGMENT)


def test_masked_leads_are_exactly_zero_and_the_others_untouched() -> None:
    hidden = np.zeros(12, dtype=bool)
    hidden[[0, 11]] = True
    masked = mask_leads(SEGMENT, hidden)
    assert not masked[[0, 11]].any()
    assert np.array_equal(masked[1:11], SEGMENT[1:11])
    assert masked.dtype == np.float32


def test_nothing_is_masked_with_probability_zero_and_everything_with_one() -> None:
    rng = np.random.default_rng(0)
    assert not draw_lead_mask(rng, 12, p=1.0, mask_leads_prob=0.0).any()
    assert draw_lead_mask(rng, 12, p=1.0, mask_leads_prob=1.0).all()
    assert not draw_lead_mask(rng, 12, p=0.0, mask_leads_prob=1.0).any()


def test_each_segment_and_epoch_draws_its_own_mask() -> None:
    masks = {
        tuple(lead_mask_of(task(), 1, epoch, record, segment, 12).tolist())
        for epoch in (1, 2)
        for record in ("georgia/E00001", "georgia/E00002")
        for segment in (0, 1)
    }
    assert len(masks) == 8


def test_the_number_of_leads_that_reach_the_model_follows_the_padding() -> None:
    assert task(leads_to_load=["I", "II"], enable_padding_leads=False).n_leads == 2
    assert task(leads_to_load=["I", "II"], enable_padding_leads=True).n_leads == 12


@pytest.mark.parametrize("mode", [None, []])
def test_lead_masking_can_be_switched_off(mode: object) -> None:
    assert not task(perturbation_mode=mode).masks_leads
