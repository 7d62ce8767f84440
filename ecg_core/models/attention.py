"""Scaled dot-product attention with dropout."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import FunctionCtx

from ecg_core.models.dropout import draw_kept
from ecg_core.models.precision import is_emulated, product

Heads = Float[Tensor, "batch head frame channel"]


def attention(
    q: Heads, k: Heads, v: Heads, hidden: Bool[Tensor, "batch frame"] | None, p: float
) -> Heads:
    """Return softmax(q k^T / sqrt(channels)) v; True in `hidden` marks keys that take no part.

    Dropout on a CPU pushes torch's own function off its fast path, so there the probabilities are
    kept with their dropout: one and a half times as fast (`python -m benchmarks.tricks`).
    """
    if p > 0 and q.device.type == "cpu":
        dropped: Tensor = _DroppedAttention.apply(q, k, v, hidden, p)
        return dropped
    dtype = torch.float32 if is_emulated(q) else q.dtype
    # torch's mask says which keys take part, ours which are hidden
    mask = None if hidden is None else ~hidden[:, None, None, :]
    attended = F.scaled_dot_product_attention(
        q.to(dtype), k.to(dtype), v.to(dtype), attn_mask=mask, dropout_p=p
    )
    return attended.to(q.dtype)


class _DroppedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None, p: float
    ) -> Tensor:
        q, k, v = (heads.contiguous() for heads in (q, k, v))
        scores = product(q * q.shape[-1] ** -0.5, k.mT).float()
        if hidden is not None:
            scores.masked_fill_(hidden[:, None, None, :], -torch.inf)
        probabilities = torch.softmax(scores, dim=-1).to(q.dtype)
        kept, ctx.scale = draw_kept(probabilities.shape, p)  # type: ignore[attr-defined]
        ctx.save_for_backward(q, k, v, probabilities, kept)
        return product((probabilities * kept).mul_(ctx.scale), v)  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, probabilities, kept = ctx.saved_tensors  # type: ignore[attr-defined]
        scale: float = ctx.scale  # type: ignore[attr-defined]
        of_v = product((probabilities * kept).mul_(scale).mT, grads[0])
        of_probabilities = product(grads[0], v.mT).float().mul_(kept).mul_(scale)
        of_scores = torch._softmax_backward_data(
            of_probabilities, probabilities.float(), -1, torch.float32
        )
        of_scores = of_scores.mul_(q.shape[-1] ** -0.5).to(q.dtype)
        return product(of_scores, k), product(of_scores.mT, q), of_v, None, None
