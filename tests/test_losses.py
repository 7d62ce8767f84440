"""Losses against their definitions in loops, and the laws that they obey."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ecg_core import losses


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_info_nce_is_minus_the_log_of_the_true_candidates_share() -> None:
    logits = random(0, 6, 5)
    expected = 0.0
    for row in logits.tolist():
        expected -= math.log(math.exp(row[0]) / sum(math.exp(value) for value in row))
    assert float(losses.info_nce(logits)) == pytest.approx(expected, rel=1e-12)


@given(targets=st.integers(1, 20), candidates=st.integers(2, 101))
def test_info_nce_of_equal_candidates_is_log_of_their_number(targets: int, candidates: int) -> None:
    logits = torch.full((targets, candidates), 3.0, dtype=torch.float64)
    expected = targets * math.log(candidates)
    assert float(losses.info_nce(logits)) == pytest.approx(expected, rel=1e-9)


def test_a_negative_that_equals_the_target_does_not_count() -> None:
    logits = random(1, 4, 6)
    without = losses.info_nce(logits[:, :4])
    logits[:, 4:] = -math.inf
    assert float(losses.info_nce(logits)) == pytest.approx(float(without))


def test_accuracy_counts_first_places_but_not_ties_of_all() -> None:
    logits = torch.tensor(
        [[2.0, 1, 0], [2, 2, 0], [1, 2, 0], [1, 1, 1], [0, 0, 1], [1, -math.inf, -math.inf]]
    )
    # the largest; as large as another; not the largest; all equal; the smallest; no other left
    assert int(losses.contrastive_accuracy(logits)) == 3


def test_diversity_is_the_unused_part_of_the_codebook() -> None:
    for perplexity, expected in ((640.0, 0.0), (64.0, 0.9), (2.0, 638 / 640)):
        found = losses.codebook_diversity(torch.tensor(perplexity), 640)
        assert float(found) == pytest.approx(expected)


def test_the_feature_penalty_is_the_mean_square() -> None:
    values = random(2, 2, 3, 4)
    expected = sum(v * v for v in values.flatten().tolist()) / 24
    assert float(losses.feature_penalty(values)) == pytest.approx(expected, rel=1e-6)


def cmsc_in_loops(
    pooled: Tensor, recording: list[int], segment: list[int], temperature: float
) -> float:
    first = [i for i, s in enumerate(segment) if s == 0]
    second = [i for i, s in enumerate(segment) if s == 1]

    def similarity(i: int, j: int) -> float:
        cosine = float(pooled[i] @ pooled[j]) / float(pooled[i].norm() * pooled[j].norm())
        return cosine / temperature

    def direction(here: list[int], there: list[int]) -> float:
        terms = []
        for i in here:
            total = sum(math.exp(similarity(i, j)) for j in there)
            terms += [
                -math.log(math.exp(similarity(i, j)) / total)
                for j in there
                if recording[i] == recording[j]
            ]
        return sum(terms) / len(terms)

    return (direction(first, second) + direction(second, first)) / 2


@pytest.mark.parametrize(
    "recording",
    [[0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 1, 1, 0, 0, 2, 2], [5, 5, 5, 5, 5, 5, 1, 1]],
)
def test_cmsc_is_its_definition(recording: list[int]) -> None:
    """Segments of one recording are each other's positives, across its pairs too (Q13)."""
    pooled, segment = random(3, 8, 5).float(), [0, 1] * 4
    found = losses.cmsc(pooled, torch.tensor(recording), torch.tensor(segment), 0.1, 1e-8)
    expected = cmsc_in_loops(pooled.double(), recording, segment, 0.1)
    assert float(found) == pytest.approx(expected, rel=1e-5)


@given(pairs=st.integers(1, 12))
def test_cmsc_of_equal_vectors_is_log_of_the_number_of_pairs(pairs: int) -> None:
    """Of one pair it is 0, so the smallest last batch teaches nothing (Q22)."""
    recording = torch.arange(pairs).repeat_interleave(2)
    segment = torch.arange(2 * pairs) % 2
    found = losses.cmsc(torch.ones(2 * pairs, 3), recording, segment, 0.1, 1e-8)
    assert float(found) == pytest.approx(math.log(pairs), abs=1e-5)


def test_cmsc_does_not_care_for_the_order_of_pairs() -> None:
    pooled, recording = random(4, 8, 5), torch.arange(4).repeat_interleave(2)
    segment = torch.arange(8) % 2
    order = torch.tensor([4, 5, 0, 1, 6, 7, 2, 3])
    first = losses.cmsc(pooled, recording, segment, 0.1, 1e-8)
    second = losses.cmsc(pooled[order], recording[order], segment, 0.1, 1e-8)
    torch.testing.assert_close(first, second)


def test_cmscs_gradient_takes_the_norms_for_constants() -> None:
    """The value is that of normalised vectors, the gradient is not (Q11, method.md 3.1)."""
    recording, segment = torch.arange(3).repeat_interleave(2), torch.arange(6) % 2
    pooled = random(5, 6, 4).float().requires_grad_()
    losses.cmsc(pooled, recording, segment, 0.1, 1e-8).backward()
    norms = pooled.detach().norm(dim=1, keepdim=True)
    unit = (pooled.detach() / norms).requires_grad_()
    similarity = unit[0::2] @ unit[1::2].T / 0.1
    rows, columns = torch.log_softmax(similarity, 1), torch.log_softmax(similarity.T, 1)
    (-(rows.diagonal().mean() + columns.diagonal().mean()) / 2).backward()
    torch.testing.assert_close(pooled.grad, unit.grad / norms)
    along = (pooled.grad * pooled.detach()).sum(dim=1).abs()
    assert float(along.max()) > 1e-2  # a true cosine has no gradient along the vector


def test_a_vector_of_zeros_is_no_obstacle_to_cmsc() -> None:
    pooled = torch.zeros(4, 3, requires_grad=True)
    recording, segment = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    losses.cmsc(pooled, recording, segment, 0.1, 1e-8).backward()
    assert bool(torch.isfinite(pooled.grad).all())


@pytest.mark.parametrize("weight", [None, [1.0, 2.0, 0.5]])
def test_classification_is_the_sum_of_independent_cross_entropies(
    weight: list[float] | None,
) -> None:
    logits, labels = random(6, 4, 3), (random(7, 4, 3) > 0).double()
    expected = 0.0
    for row in range(4):
        for k in range(3):
            p, y = 1 / (1 + math.exp(-float(logits[row, k]))), float(labels[row, k])
            w = weight[k] if weight else 1.0
            expected -= w * y * math.log(p) + (1 - y) * math.log(1 - p)
    given_weight = None if weight is None else torch.tensor(weight)
    found = losses.binary_cross_entropy(logits.float(), labels.float(), given_weight)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_classifier_that_knows_nothing_pays_one_bit_a_label() -> None:
    found = losses.binary_cross_entropy(torch.zeros(5, 26), torch.ones(5, 26))
    assert float(found) == pytest.approx(5 * 26 * math.log(2), rel=1e-6)
