"""The feed-forward's second half: GELU, dropout and a linear layer."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx

from ecg_core.models.dropout import draw_kept, dropout
from ecg_core.models.precision import Linear, linear_gradients, product_of_rows


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
        x = _dropped(F.gelu(h), kept, scale)
        to_x, to_weight, to_bias = linear_gradients(grads[0], x, weight.to(x.dtype))
        to_h = torch.ops.aten.gelu_backward(_dropped(to_x, kept, scale), h)
        return to_h, to_weight, to_bias, None


def _dropped(x: Tensor, kept: Tensor, scale: float) -> Tensor:
    return x.mul_(kept).mul_(scale) if len(kept) else x
