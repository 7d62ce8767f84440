"""Chance has a name, and leads have one order."""

import numpy as np
import pytest
import torch

from ecg_core.classes import ABBREVIATIONS, CLASS_OF_CODE, CLASSES, SINUS_CLASS
from ecg_core.leads import LEAD_SETS, LEADS, lead_position, lead_positions
from ecg_core.seeds import numpy_generator, seed_of, torch_generator


def test_a_key_has_the_same_seed_on_every_machine() -> None:
    # SHA-256 of "str:lead mask\x1fint:1", computed apart
    import hashlib

    digest = hashlib.sha256(b"str:lead mask\x1fint:1").hexdigest()
    assert seed_of("lead mask", 1) == int(digest[:16], 16) // 2


def test_keys_that_join_to_the_same_text_have_different_seeds() -> None:
    seeds = {seed_of("a", "b"), seed_of("ab"), seed_of("a", 1), seed_of("a", "1"), seed_of("a1")}
    assert len(seeds) == 5


def test_generators_repeat_themselves_and_differ_by_use() -> None:
    def draws(use: str) -> list[float]:
        numbers = numpy_generator(use, 3).random(4).tolist()
        return numbers + torch.rand(4, generator=torch_generator(use, 3)).tolist()

    assert draws("negatives") == draws("negatives")
    assert not np.isin(draws("negatives"), draws("gumbel noise")).any()


def test_leads_are_found_by_name_in_any_case_and_by_number() -> None:
    assert [lead_position(lead) for lead in ("i", "AVR", " v6 ", 7)] == [0, 3, 11, 7]
    assert lead_positions(None) == tuple(range(12))


@pytest.mark.parametrize("leads", [[], ["V7"], [12], [-1], ["I", 0]])
def test_leads_that_are_none_or_twice_are_refused(leads: list[str | int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        lead_positions(leads)


def test_lead_sets_are_the_papers() -> None:
    names = {size: [LEADS[lead] for lead in leads] for size, leads in LEAD_SETS.items()}
    assert names[6] == ["I", "II", "III", "aVR", "aVL", "aVF"]
    assert (names[3], names[2], names[1]) == (["I", "II", "V2"], ["I", "II"], ["I"])


def test_the_classes_are_the_challenges_26_with_four_merged_pairs() -> None:
    assert len(CLASSES) == len(ABBREVIATIONS) == 26
    assert len(CLASS_OF_CODE) == 30
    assert CLASSES[SINUS_CLASS] == "426783006"
    assert SINUS_CLASS == 14
    assert CLASS_OF_CODE["63593006"] == CLASS_OF_CODE["284470004"] == 15
