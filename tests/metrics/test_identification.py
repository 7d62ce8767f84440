"""Matching against cases known by heart, and rates against their definition in loops."""

import numpy as np
import pandas as pd
import pytest

from ecg_core.metrics.identification import (
    Matching,
    chance,
    equal_error_rates,
    headline,
    match,
    match_table,
    mean_embeddings,
    numbers,
)


def matching_of(cosines: list[list[float]]) -> Matching:
    """Probe i belongs to the gallery's i."""
    return Matching(np.array(cosines, dtype=np.float64), np.arange(len(cosines)))


def unit_vectors(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, 8))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def once(rows: int) -> np.ndarray:
    return np.ones((rows, 1))


def test_the_same_vectors_in_another_order_are_all_found() -> None:
    gallery, names = unit_vectors(9, 1), np.array([f"p{n}" for n in range(9)])
    order = np.random.default_rng(2).permutation(9)
    found = match(gallery[order], gallery, names[order], names)
    assert found.rank().tolist() == [1] * 9
    assert {name: value[0] for name, value in numbers(found, once(9)).items()} == {
        "top1": 1.0,
        "top5": 1.0,
        "equal_error_rate": 0.0,
    }


def test_equal_embeddings_for_everyone_match_nobody() -> None:
    same = np.ones((7, 4)) / 2
    names = np.arange(7).astype(str)
    found = match(same, same, names, names)
    assert found.rank().tolist() == [7] * 7
    assert numbers(found, once(7))["top1"][0] == 0.0


def test_rank_counts_who_is_at_least_as_near() -> None:
    found = matching_of([[0.5, 0.9, 0.1], [0.2, 0.3, 0.3], [0.0, -1.0, 0.4]])
    assert found.rank().tolist() == [2, 2, 1]
    assert numbers(found, once(3))["top1"][0] == pytest.approx(1 / 3)
    assert numbers(found, once(3))["top5"][0] == 1.0


def test_equal_error_rate_of_separated_cosines_is_zero_and_of_reversed_ones_is_one() -> None:
    apart = matching_of([[0.9, 0.1], [0.2, 0.8]])
    assert equal_error_rates(apart, once(2))[0] == 0.0
    reversed_ = matching_of([[0.1, 0.9], [0.8, 0.1]])
    assert equal_error_rates(reversed_, once(2))[0] == 1.0


def test_equal_error_rate_equals_its_definition_in_loops() -> None:
    cosines = np.random.default_rng(3).random((12, 12)) + 0.4 * np.eye(12)
    own = np.diag(cosines)
    others = [cosines[i, j] for i in range(12) for j in range(12) if i != j]
    rates = []
    for limit in [*own, *(own + 1e-9)]:
        accepted = np.mean([cosine >= limit for cosine in others])
        rejected = np.mean([cosine < limit for cosine in own])
        rates.append((abs(accepted - rejected), (accepted + rejected) / 2))
    found = equal_error_rates(Matching(cosines, np.arange(12)), once(12))
    assert found[0] == pytest.approx(min(rates)[1])


def test_a_single_patient_has_no_strangers() -> None:
    row = headline(matching_of([[0.7]]), 10, 1)
    assert (row["top1"], row["chance_top1"], row["patients"]) == (1.0, 1.0, 1.0)
    assert np.isnan(row["equal_error_rate"])
    assert np.isnan(row["equal_error_rate_low"])


def test_random_embeddings_find_as_many_as_chance_says() -> None:
    names = np.arange(400).astype(str)
    found = match(unit_vectors(400, 4), unit_vectors(400, 5), names, names)
    row = headline(found, 200, 1)
    assert row["top1"] == pytest.approx(row["chance_top1"], abs=0.01)
    assert row["top5"] == pytest.approx(row["chance_top5"], abs=0.02)
    assert row["equal_error_rate"] == pytest.approx(0.5, abs=0.05)
    assert row["equal_error_rate_low"] < row["equal_error_rate"] < row["equal_error_rate_high"]


def test_chance_of_a_small_gallery_is_at_most_one() -> None:
    assert chance(17) == {"chance_top1": 1 / 17, "chance_top5": 5 / 17}
    assert chance(3)["chance_top5"] == 1.0


def test_a_probe_without_its_patient_in_the_gallery_is_a_mistake() -> None:
    vectors = unit_vectors(2, 6)
    with pytest.raises(ValueError, match="once in the gallery"):
        match(vectors, vectors, np.array(["a", "b"]), np.array(["a", "a"]))


def test_mean_embedding_is_the_direction_of_the_mean() -> None:
    segments = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    means = mean_embeddings(segments, np.array([0, 0, 1]))
    assert means.ravel().tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0.6, 0.8])
    assert mean_embeddings(np.zeros((1, 2)), np.array([0])).tolist() == [[0.0, 0.0]]


def test_matches_name_the_nearest_recording() -> None:
    recordings = pd.DataFrame({"patient": ["p", "q"], "record_id": ["R1", "R2"]})
    gallery = pd.DataFrame({"patient": ["p", "q"], "record_id": ["G1", "G2"]})
    table = match_table(matching_of([[0.5, 0.9], [0.1, 0.3]]), recordings, gallery)
    assert table["nearest"].to_list() == ["G2", "G2"]
    assert table["rank"].to_list() == [2, 1]
    assert table["gallery"].to_list() == ["G1", "G2"]
