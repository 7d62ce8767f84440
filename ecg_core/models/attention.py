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
    """A few segments at a time: their scores stay in the processor's cache, and few are held."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None, p: float
    ) -> Tensor:
        batch, heads, frames, channels = q.shape
        kept, scale = draw_kept(torch.Size((batch, heads, frames, k.shape[2])), p)
        probabilities, attended = q.new_empty(kept.shape), torch.empty_like(q)
        for some in _some_rows(batch):
            scores = product(q[some] * channels**-0.5, k[some].mT).float()
            if hidden is not None:
                scores.masked_fill_(hidden[some, None, None, :], -torch.inf)
            probabilities[some] = torch.softmax(scores, dim=-1)
            dropped = (probabilities[some] * kept[some]).mul_(scale)
            attended[some] = product(dropped, v[some])
        ctx.save_for_backward(q, k, v, probabilities, kept)
        ctx.scale = scale  # type: ignore[attr-defined]
        return attended

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, probabilities, kept = ctx.saved_tensors  # type: ignore[attr-defined]
        scale: float = ctx.scale  # type: ignore[attr-defined]
        of_q, of_k, of_v = (torch.empty_like(heads) for heads in (q, k, v))
        for some in _some_rows(len(q)):
            chance, grad = probabilities[some], grads[0][some]
            of_v[some] = product((chance * kept[some]).mul_(scale).mT, grad)
            of_chance = product(grad, v[some].mT).float().mul_(kept[some]).mul_(scale)
            of_scores = torch._softmax_backward_data(of_chance, chance.float(), -1, torch.float32)
            of_scores = of_scores.mul_(q.shape[-1] ** -0.5).to(q.dtype)
            of_q[some] = product(of_scores, k[some])
            of_k[some] = product(of_scores.mT, q[some])
        return of_q, of_k, of_v, None, None


def _some_rows(batch: int) -> list[slice]:
    return [slice(first, first + 4) for first in range(0, batch, 4)]
