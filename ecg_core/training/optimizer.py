"""Adam as the original has it, on torch's fused implementation."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ecg_core.params import Section

Beta = Field(ge=0, lt=1)


class OptimizationParams(Section):
    """Section `optimization`."""

    max_epoch: int = Field(ge=1)
    max_update: int = Field(ge=0)
    lr: tuple[float, ...] = Field(min_length=1)
    update_freq: tuple[int, ...] = Field(min_length=1)
    clip_norm: float = Field(ge=0)


class OptimizerParams(Section):
    """Section `optimizer`."""

    name: Literal["adam"] = Field(alias="_name")
    adam_betas: tuple[float, float]
    adam_eps: float = Field(gt=0)
    weight_decay: float = Field(ge=0)


class Adam:
    """Decoupled weight decay, then Adam with eps added to the uncorrected root of v.

    p -= lr wd p;  p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps). method.md 5.4. torch
    adds eps to the corrected root: with eps / sqrt(1 - b2^t) in its place both are the same. t
    counts a parameter's own steps: one that rested at first begins with 1. torch's kernel is called
    by itself: around it torch.optim imports the compiler, which takes as long as torch.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        self.parameters = list(parameters)
        self.steps = [0] * len(self.parameters)
        self.moments: list[list[Tensor]] = [[] for _ in self.parameters]
        """m and v of every parameter that has taken a step."""
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay

    def step(self, lr: float) -> None:
        """Update every parameter that has a gradient."""
        by_steps: dict[int, list[int]] = {}
        for number, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                self.steps[number] += 1
                by_steps.setdefault(self.steps[number], []).append(number)
                if not self.moments[number]:
                    self.moments[number] = [torch.zeros_like(parameter) for _ in range(2)]
        with torch.no_grad():
            for steps, numbers in by_steps.items():
                self._step(steps, numbers, lr)

    def _step(self, steps: int, numbers: list[int], lr: float) -> None:
        """Update parameters, given by their numbers, that all take their step number `steps`."""
        parameters: list[Tensor] = [self.parameters[number] for number in numbers]
        count = torch.tensor(float(steps), device=parameters[0].device)
        torch._fused_adamw_(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [self.moments[number][0] for number in numbers],
            [self.moments[number][1] for number in numbers],
            [],
            [count] * len(numbers),
            lr=lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=self.eps / (1 - self.betas[1] ** steps) ** 0.5,
            amsgrad=False,
            maximize=False,
        )

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        return {"steps": list(self.steps), "moments": [list(pair) for pair in self.moments]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.steps = list(state["steps"])
        self.moments = [
            [moment.to(parameter.device) for moment in pair]
            for parameter, pair in zip(self.parameters, state["moments"], strict=True)
        ]


def adam(parameters: Iterable[nn.Parameter], params: OptimizerParams) -> Adam:
    """Return the optimizer of section `optimizer`."""
    return Adam(parameters, params.adam_betas, params.adam_eps, params.weight_decay)


def scale_and_clip(parameters: Iterable[nn.Parameter], divisor: float, clip_norm: float) -> float:
    """Divide all gradients, clip their common norm where asked, return the norm before that."""
    gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
    torch._foreach_div_(gradients, divisor)
    norms = torch._foreach_norm(gradients)
    norm = float(torch.linalg.vector_norm(torch.stack(list(norms))))
    if clip_norm > 0:
        torch._foreach_mul_(gradients, min(1.0, clip_norm / (norm + 1e-6)))
    return norm
