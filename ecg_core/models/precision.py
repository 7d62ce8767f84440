"""The transformer's matrix products: in bf16 or fp32, each the way its processor is fastest at.

A bf16 product multiplies numbers rounded to bf16 exactly, adds up in fp32 and rounds the sum. GPUs
and processors with AMX or AVX512-BF16 do that in hardware. Elsewhere torch's own bf16 product is
many times slower than its fp32 one (`python -m benchmarks.tricks`), so there the rounded
numbers are multiplied in fp32: the same arithmetic, up to the order of sums, at the speed of fp32.
"""

import functools
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from ecg_core.device import cpu_multiplies_bf16

DTYPES: dict[Literal["fp32", "bf16"], torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@functools.cache
def cpu_prefers_convolution() -> bool:
    """Return whether oneDNN's 1 x 1 convolution beats the matrix product that torch calls.

    On AVX2 without AVX-512 (AMD Zen 2) with two threads by a sixth: `python -m benchmarks.tricks`.
    """
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX2" and torch.backends.mkldnn.is_available()
    )


def is_emulated(x: Tensor) -> bool:
    """Return whether products of such numbers are computed in fp32 and rounded."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and not cpu_multiplies_bf16()


def product(a: Float[Tensor, "... n k"], b: Float[Tensor, "... k m"]) -> Float[Tensor, "... n m"]:
    """Multiply matrices of one dtype; not differentiable where bf16 is emulated."""
    if is_emulated(a):
        return (a.float() @ b.float()).to(a.dtype)
    return a @ b


def _is_convolved(a: Tensor) -> bool:
    return a.dtype == torch.float32 and a.device.type == "cpu" and cpu_prefers_convolution()


def _pixels(a: Float[Tensor, "n k"]) -> Float[Tensor, "1 k n 1"]:
    """Let rows be pixels and columns channels: neither input nor output is copied."""
    return a.view(1, len(a), 1, -1).permute(0, 3, 1, 2)


def _rows(pixels: Float[Tensor, "1 m n 1"]) -> Float[Tensor, "n m"]:
    return pixels.permute(0, 2, 3, 1).reshape(pixels.shape[2], -1)


def product_of_rows(
    a: Float[Tensor, "n k"], b: Float[Tensor, "m k"], bias: Float[Tensor, " m"]
) -> Float[Tensor, "n m"]:
    """Return a b^T + bias of numbers of one dtype; no gradients where bf16 is emulated."""
    if is_emulated(a):
        return product_of_rows(a.float(), b.float(), bias.float()).to(a.dtype)
    if not _is_convolved(a):
        return F.linear(a, b, bias)
    return _rows(F.conv2d(_pixels(a), b[:, :, None, None], bias))


def input_gradient(
    grad: Float[Tensor, "n out"], weight: Float[Tensor, "out channel"]
) -> Float[Tensor, "n channel"]:
    """Return the gradient of x W^T + b for x; both of one dtype, `grad` in row order."""
    if is_emulated(grad):
        return input_gradient(grad.float(), weight.float()).to(grad.dtype)
    if not _is_convolved(grad):
        return grad @ weight
    return _rows(F.conv_transpose2d(_pixels(grad), weight[:, :, None, None]))


def weight_gradient(
    grad: Float[Tensor, "n out"], x: Float[Tensor, "n channel"]
) -> Float[Tensor, "out channel"]:
    """Return the gradient of x W^T + b for W; both of one dtype, `grad` in row order."""
    if is_emulated(x):
        return (grad.float().T @ x.float()).to(x.dtype)
    return grad.T @ x


def linear(
    x: Float[Tensor, "... channel"],
    weight: Float[Tensor, "out channel"],
    bias: Float[Tensor, " out"],
    dtype: torch.dtype,
) -> Float[Tensor, "... out"]:
    """Return x W^T + b with both factors rounded to `dtype`, which the result has too."""
    x = x.to(dtype)
    if x.device.type == "cpu" and (dtype == torch.bfloat16 or cpu_prefers_convolution()):
        rows: Tensor = _Linear.apply(x.flatten(0, -2), weight, bias)
        return rows.view(*x.shape[:-1], -1)
    return F.linear(x, weight.to(dtype), bias.to(dtype))


class _Linear(torch.autograd.Function):
    """Keeps the rounded input and the weight itself, which is rounded again for the gradients."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product_of_rows(x, weight.to(x.dtype), bias.to(x.dtype))

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        grad = grads[0].contiguous()
        to_weight = weight_gradient(grad, x)
        return input_gradient(grad, weight.to(x.dtype)), to_weight, grad.sum(0)


class Linear(nn.Linear):
    """A linear layer whose product is computed in `products` while training, in fp32 otherwise."""

    products: torch.dtype = torch.float32

    @property
    def dtype(self) -> torch.dtype:
        """Of the product now."""
        return self.products if self.training else torch.float32

    def forward(self, x: Float[Tensor, "... channel"]) -> Float[Tensor, "... out"]:
        """Return x W^T + b."""
        return linear(x, self.weight, self.bias, self.dtype)
