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

    On AVX2 without AVX-512 (AMD Zen 2), two threads: a tenth of forward and backward (`python -m
    benchmarks.tricks`), of which the gradient of the weights, a third, stays as it was.
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


def product_of_rows(
    a: Float[Tensor, "n k"], b: Float[Tensor, "m k"], bias: Float[Tensor, " m"] | None = None
) -> Float[Tensor, "n m"]:
    """Return a b^T + bias of numbers of one dtype on a CPU; no gradients where bf16 is emulated."""
    if is_emulated(a):
        wide = None if bias is None else bias.float()
        return product_of_rows(a.float(), b.float(), wide).to(a.dtype)
    if a.dtype != torch.float32 or not cpu_prefers_convolution():
        return F.linear(a, b, bias)
    # rows are pixels and columns channels, so neither the input nor the output is copied
    pixels = a.view(1, len(a), 1, -1).permute(0, 3, 1, 2)
    convolved = F.conv2d(pixels, b[:, :, None, None], bias)
    return convolved.permute(0, 2, 3, 1).reshape(len(a), -1)


def linear(
    x: Float[Tensor, "... channel"],
    weight: Float[Tensor, "out channel"],
    bias: Float[Tensor, " out"],
    dtype: torch.dtype,
) -> Float[Tensor, "... out"]:
    """Return x W^T + b with both factors rounded to `dtype`, which the result has too."""
    x = x.to(dtype)
    if x.device.type == "cpu" and (is_emulated(x) or cpu_prefers_convolution()):
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
        return linear_gradients(grads[0], x, weight)


def linear_gradients(
    grad: Float[Tensor, "n out"],
    x: Float[Tensor, "n channel"],
    weight: Float[Tensor, "out channel"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x W^T + b for x, W and b; those of W and b in fp32."""
    grad = grad.contiguous()
    to_x = product_of_rows(grad, weight.T.to(x.dtype).contiguous())
    to_bias = grad.sum(0, dtype=torch.float32).to(x.dtype)
    return to_x, product(grad.T, x).to(weight.dtype), to_bias.to(weight.dtype)


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
