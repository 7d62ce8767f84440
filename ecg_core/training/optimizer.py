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
    counts a parameter's own steps: one that rested at first begins with 1.
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
        self.eps = eps
        self.beta2 = betas[1]
        self.torch_adam = torch.optim.AdamW(
            self.parameters, lr=0.0, betas=betas, eps=eps, weight_decay=weight_decay, fused=True
        )
        self._settings = {**self.torch_adam.param_groups[0], "params": []}

    def step(self, lr: float) -> None:
        """Update every parameter that has a gradient."""
        by_steps: dict[int, list[nn.Parameter]] = {}
        for number, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                self.steps[number] += 1
                by_steps.setdefault(self.steps[number], []).append(parameter)
        self.torch_adam.param_groups = [
            {
                **self._settings,
                "params": parameters,
                "lr": lr,
                "eps": self.eps / (1 - self.beta2**steps) ** 0.5,
            }
            for steps, parameters in by_steps.items()
        ]
        self.torch_adam.step()

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        moments = [dict(self.torch_adam.state[parameter]) for parameter in self.parameters]
        return {"steps": list(self.steps), "moments": moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.steps = list(state["steps"])
        for parameter, moments in zip(self.parameters, state["moments"], strict=True):
            if moments:
                own = {name: value.to(parameter.device) for name, value in moments.items()}
                self.torch_adam.state[parameter] = own


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
