"""Adam and clipping, against their formulas in float64 loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ecg_core.training.optimizer import Adam, scale_and_clip


def reference_adam(
    weights: np.ndarray, gradients: list[np.ndarray], lr: float, eps: float, decay: float
) -> np.ndarray:
    """method.md 5.4, written out; eps stands beside the uncorrected root."""
    beta1, beta2 = 0.9, 0.98
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    for step, gradient in enumerate(gradients, start=1):
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        weights = weights - lr * decay * weights
        correction = math.sqrt(1 - beta2**step) / (1 - beta1**step)
        weights = weights - lr * correction * mean / (np.sqrt(square) + eps)
    return weights


@pytest.mark.parametrize("eps", [1e-8, 1e-6, 1e-2])
def test_adam_takes_the_steps_of_the_formula(eps: float) -> None:
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=50), [rng.normal(size=50) * 1e-3 for _ in range(7)]
    parameter = nn.Parameter(torch.tensor(start))
    adam = Adam([parameter], (0.9, 0.98), eps, 0.01)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        adam.step(1e-2)
    expected = reference_adam(start, gradients, 1e-2, eps, 0.01)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=1e-12)


def test_a_parameter_without_gradient_does_not_even_decay() -> None:
    parameter = nn.Parameter(torch.ones(3))
    Adam([parameter], (0.9, 0.98), 1e-6, 0.01).step(1.0)
    assert parameter.tolist() == [1.0, 1.0, 1.0]


def test_a_saved_optimizer_goes_on_bit_for_bit() -> None:
    def run(split: bool) -> torch.Tensor:
        torch.manual_seed(0)
        parameter = nn.Parameter(torch.randn(20))
        adam = Adam([parameter], (0.9, 0.98), 1e-6, 0.01)
        for step in range(6):
            if split and step == 3:
                state = adam.state_dict()
                adam = Adam([parameter], (0.9, 0.98), 1e-6, 0.01)
                adam.load_state_dict(state)
            parameter.grad = torch.sin(parameter.detach() * (step + 1))
            adam.step(0.1)
        return parameter.detach()

    assert torch.equal(run(split=True), run(split=False))


def test_gradients_are_divided_before_their_norm_is_taken_and_clipped() -> None:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([6.0, 0.0]), torch.tensor([8.0])
    assert scale_and_clip(parameters, divisor=2.0, clip_norm=1.0) == pytest.approx(5.0)
    found = [*parameters[0].grad.tolist(), *parameters[1].grad.tolist()]
    assert found == pytest.approx([0.6, 0.0, 0.8], rel=1e-6)


def test_without_clipping_only_the_division_happens() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.tensor([30.0])
    assert scale_and_clip([parameter], 3.0, 0.0) == pytest.approx(10.0)
    assert parameter.grad.item() == pytest.approx(10.0)
