"""Activation checkpointing: a part's input is kept, the rest computed again for the gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.autograd.graph import get_gradient_edge


class Recomputed(nn.Module):
    """A part of a model that can do without its activations."""

    checkpoints_activations = False

    def __call__(self, *inputs: Any) -> Tensor:
        """Call the part; where it checkpoints, gradients will call it once more."""
        output: Tensor
        if self.checkpoints_activations and torch.is_grad_enabled():
            parameters = tuple(p for p in self.parameters() if p.requires_grad)
            output = _Again.apply(super().__call__, len(inputs), *inputs, *parameters)
        else:
            output = super().__call__(*inputs)
        return output


class _Again(torch.autograd.Function):
    """`call(*inputs)` with gradients for inputs and parameters.

    All dropout draws from torch's generator of its device, whose state is put back for the second
    call. Not `torch.utils.checkpoint`: that imports torch's compiler, 1.2 s and 76 MB, which a run
    that asks for little memory does not get back.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, call: Callable[..., Tensor], n_inputs: int, *values: Tensor | None
    ) -> Tensor:
        ctx.call, ctx.n_inputs = call, n_inputs  # type: ignore[attr-defined]
        # parameters are kept by reference, as every layer keeps its weights
        ctx.save_for_backward(*values)  # type: ignore[arg-type]
        ctx.random = _random_state(values[0])  # type: ignore[attr-defined]
        return call(*values[:n_inputs])

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        n_inputs: int = ctx.n_inputs  # type: ignore[attr-defined]
        saved: tuple[Tensor | None, ...] = ctx.saved_tensors  # type: ignore[attr-defined]
        needed: tuple[bool, ...] = ctx.needs_input_grad[2:]  # type: ignore[attr-defined]
        inputs = [
            None if x is None else x.detach().requires_grad_(need)
            for x, need in zip(saved[:n_inputs], needed, strict=False)
        ]
        now = _random_state(saved[0])
        _set_random_state(saved[0], ctx.random)  # type: ignore[attr-defined]
        with torch.enable_grad():
            # of the output nothing but its place in the graph is needed
            output = get_gradient_edge(ctx.call(*inputs))  # type: ignore[attr-defined]
        _set_random_state(saved[0], now)
        wanted = [x for x in (*inputs, *saved[n_inputs:]) if x is not None and x.requires_grad]
        found = iter(torch.autograd.grad([output], wanted, grads, allow_unused=True))
        return None, None, *(next(found) if need else None for need in needed)


def _random_state(like: Tensor | None) -> Tensor:
    """Return the state of the generator of a tensor's device."""
    if like is not None and like.is_cuda:
        return torch.cuda.get_rng_state(like.device)
    return torch.get_rng_state()


def _set_random_state(like: Tensor | None, state: Tensor) -> None:
    if like is not None and like.is_cuda:
        torch.cuda.set_rng_state(state, like.device)
    else:
        torch.set_rng_state(state)
