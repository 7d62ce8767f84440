"""The feed-forward's second half: GELU, dropout and a linear layer."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx

from ecg_core.models.dropout import draw_kept, dropout
from ecg_core.models.precision import (
    Linear,
    input_gradient,
    product_of_rows,
    weight_gradient,
)


def gelu_linear(
    h: Float[Tensor, "... inner"], layer: Linear, p: float
) -> Float[Tensor, "... channel"]:
    """Return `layer(dropout(gelu(h), p))`; p is 0 out of training.

    On a CPU what GELU gives is not kept for the gradients but computed again from h, which is kept
    anyway: four of the about twenty numbers a frame and channel that a layer would keep.
    """
    if h.device.type != "cpu" or not torch.is_grad_enabled():
        plain: Tensor = layer(dropout(F.gelu(h), p, training=True))
        return plain
    rows: Tensor = _GeluLinear.apply(h.flatten(0, -2), layer.weight, layer.bias, p)
    return rows.view(*h.shape[:-1], -1)


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, h: Tensor, weight: Tensor, bias: Tensor, p: float) -> Tensor:
        kept, ctx.scale = draw_kept(h.shape, p) if p > 0 else (h.new_empty(0), 1.0)  # type: ignore[attr-defined]
        ctx.save_for_backward(h, weight, kept)
        return product_of_rows(
            _dropped(F.gelu(h), kept, ctx.scale),  # type: ignore[attr-defined]
            weight.to(h.dtype),
            bias.to(h.dtype),
        )

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        h, weight, kept = ctx.saved_tensors  # type: ignore[attr-defined]
        scale: float = ctx.scale  # type: ignore[attr-defined]
        grad, weight = grads[0].contiguous(), weight.to(h.dtype)
        # the weight first, and GELU's gradient in place: of three large tensors one lives at a time
        to_weight = weight_gradient(grad, _dropped(F.gelu(h), kept, scale))
        to_x = _dropped(input_gradient(grad, weight), kept, scale)
        to_h = torch.ops.aten.gelu_backward.grad_input(to_x, h, grad_input=to_x)
        to_bias = grad.sum(0)
        return to_h, to_weight, to_bias, None


def _dropped(x: Tensor, kept: Tensor, scale: float) -> Tensor:
    return x.mul_(kept).mul_(scale) if len(kept) else x
