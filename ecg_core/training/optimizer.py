"""Adam as the original has it, on torch's fused implementation."""

from collections.abc import Iterable
from typing import Literal

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
    adds eps to the corrected root: with eps / sqrt(1 - b2^t) in its place both are the same.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        self.eps = eps
        self.beta2 = betas[1]
        self.steps = 0
        self.torch_adam = torch.optim.AdamW(
            parameters, lr=0.0, betas=betas, eps=eps, weight_decay=weight_decay, fused=True
        )

    def step(self, lr: float) -> None:
        """Update every parameter that has a gradient."""
        self.steps += 1
        for group in self.torch_adam.param_groups:
            group["lr"] = lr
            group["eps"] = self.eps / (1 - self.beta2**self.steps) ** 0.5
        self.torch_adam.step()

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.torch_adam.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, object]:
        """Return everything that the next step depends on."""
        return {"steps": self.steps, "adam": self.torch_adam.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from a saved state."""
        self.steps = int(state["steps"])  # type: ignore[call-overload]
        self.torch_adam.load_state_dict(state["adam"])  # type: ignore[arg-type]


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
