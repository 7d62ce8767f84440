"""Dropout that costs little on a CPU, where drawing its chance took a tenth of a training step."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import FunctionCtx

_LEVELS = 2**16


def dropout(x: Float[Tensor, "..."], p: float, training: bool) -> Float[Tensor, "..."]:
    """Zero each number with probability p and scale the rest up, while training.

    On a CPU p is rounded to a multiple of 2^-16 and the scale made for that, so the expectation is
    exact. Three times as fast as `F.dropout` there, at a quarter of its memory (`python -m
    benchmarks.tricks`). On a GPU `F.dropout` is one fused kernel already.
    """
    if not training or p == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    dropped: Tensor = _Dropout.apply(x, p)
    return dropped


def draw_kept(shape: torch.Size, p: float) -> tuple[Bool[Tensor, "..."], float]:
    """Draw what dropout keeps from torch's own generator; return it with the scale of what stays.

    Four numbers come of each of the generator's 64-bit words.
    """
    n = shape.numel()
    words = torch.empty(-(-n // 4), dtype=torch.int64).random_(-(2**63), None)
    level = round(p * _LEVELS)
    kept = words.view(torch.int16)[:n] >= level - _LEVELS // 2
    return kept.view(shape), _LEVELS / (_LEVELS - level)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, p: float) -> Tensor:
        kept, ctx.scale = draw_kept(x.shape, p)  # type: ignore[attr-defined]
        ctx.save_for_backward(kept)
        return (x * kept).mul_(ctx.scale)  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return (grads[0] * kept).mul_(ctx.scale), None  # type: ignore[attr-defined]
