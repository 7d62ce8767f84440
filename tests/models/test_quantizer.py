"""The quantizer against its definition in loops."""

import math

import pytest
import torch
from torch import Tensor

from ecg_core.models.quantizer import GumbelQuantizer, gumbel_noise, temperature

ENTRIES, GROUPS = 5, 2


def quantizer() -> GumbelQuantizer:
    torch.manual_seed(0)
    return GumbelQuantizer(channels=6, entries=ENTRIES, groups=GROUPS, code_channels=4)


def logits_of(module: GumbelQuantizer, x: Tensor) -> Tensor:
    flat = x.reshape(-1, x.shape[-1])
    return (flat @ module.weight_proj.weight.T + module.weight_proj.bias).view(-1, GROUPS, ENTRIES)


@torch.no_grad()
def test_codes_are_the_entries_with_the_largest_logit_joined() -> None:
    module, x = quantizer(), torch.randn(2, 3, 6)
    found = module(x, 2.0, None).codes.reshape(6, 4)
    logits = logits_of(module, x)
    for n in range(6):
        parts = []
        for group in range(GROUPS):
            best = max(range(ENTRIES), key=lambda v: float(logits[n, group, v]))
            parts.append(module.vars[0, group * ENTRIES + best])
        torch.testing.assert_close(found[n], torch.cat(parts))


def test_noise_decides_which_entry_is_taken() -> None:
    module, x = quantizer(), torch.randn(1, 2, 6)
    noise = torch.zeros(2 * GROUPS, ENTRIES)
    for choice in range(2 * GROUPS):
        noise[choice, choice] = 1e4
    found = module(x, 0.7, noise).codes.reshape(2, 4)
    for n in range(2):
        parts = [module.vars[0, g * ENTRIES + (n * GROUPS + g)] for g in range(GROUPS)]
        torch.testing.assert_close(found[n], torch.cat(parts))


@pytest.mark.parametrize("tau", [2.0, 0.5])
def test_the_gradient_goes_straight_through_to_the_soft_choice(tau: float) -> None:
    module, x = quantizer(), torch.randn(1, 3, 6)
    noise = gumbel_noise((3 * GROUPS, ENTRIES), torch.Generator().manual_seed(1))
    weight = torch.randn(1, 3, 4)
    (module(x, tau, noise).codes * weight).sum().backward()
    found = module.weight_proj.weight.grad
    module.zero_grad()
    soft = torch.softmax((logits_of(module, x) + noise.view(3, GROUPS, ENTRIES)) / tau, dim=-1)
    entries = module.vars.detach().view(GROUPS, ENTRIES, 2)
    codes = torch.stack([soft[:, g] @ entries[g] for g in range(GROUPS)], dim=1).reshape(1, 3, 4)
    (codes * weight).sum().backward()
    torch.testing.assert_close(found, module.weight_proj.weight.grad)


def perplexity(probabilities: list[float]) -> float:
    return math.exp(-sum(p * math.log(p + 1e-7) for p in probabilities))


def test_perplexities_are_sums_over_groups_of_the_mean_choice() -> None:
    module, x = quantizer(), torch.randn(2, 5, 6)
    noise = gumbel_noise((10 * GROUPS, ENTRIES), torch.Generator().manual_seed(1))
    found = module(x, 2.0, noise)
    logits = logits_of(module, x).detach()
    hard = soft = 0.0
    for group in range(GROUPS):
        best = [int(logits[n, group].argmax()) for n in range(10)]
        hard += perplexity([best.count(v) / 10 for v in range(ENTRIES)])
        # temperature 1 and no noise here: it is the codebook that is judged
        each = torch.softmax(logits[:, group], dim=-1)
        soft += perplexity([float(each[:, v].mean()) for v in range(ENTRIES)])
    assert float(found.code_perplexity) == pytest.approx(hard, rel=1e-5)
    assert found.prob_perplexity.item() == pytest.approx(soft, rel=1e-5)
    assert not found.code_perplexity.requires_grad
    assert found.prob_perplexity.requires_grad


@torch.no_grad()
def test_a_codebook_that_is_used_evenly_has_its_size_as_perplexity() -> None:
    module = quantizer()
    torch.nn.init.zeros_(module.weight_proj.weight)
    found = module(torch.randn(1, 4, 6), 2.0, None)
    assert float(found.prob_perplexity) == pytest.approx(GROUPS * ENTRIES, rel=1e-5)
    assert float(found.code_perplexity) == pytest.approx(GROUPS, rel=1e-5)


def test_the_temperature_falls_to_its_floor() -> None:
    assert temperature(0, 2.0, 0.5, 0.999995) == 2.0
    assert temperature(1, 2.0, 0.5, 0.999995) == pytest.approx(1.99999)
    first_at_floor = next(
        n for n in range(277_000, 278_000) if temperature(n, 2.0, 0.5, 0.999995) == 0.5
    )
    assert first_at_floor == math.ceil(math.log(0.25) / math.log(0.999995))


def test_gumbel_noise_has_gumbels_mean_and_spread() -> None:
    noise = gumbel_noise((200_000,), torch.Generator().manual_seed(0)).double()
    assert noise.mean().item() == pytest.approx(0.57722, abs=0.015)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, rel=0.03)
    assert bool(torch.isfinite(noise).all())
