"""The convolution that tells the transformer where a frame stands."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.utils.parametrizations import weight_norm

from ecg_core.models.recomputed import Recomputed

Frames = Float[Tensor, "batch frame channel"]


class PositionalConv(Recomputed):
    """A grouped convolution over frames, weight-normalised per kernel tap. method.md 2.3."""

    products: torch.dtype = torch.float32

    def __init__(self, channels: int, kernel: int, groups: int) -> None:
        super().__init__()
        conv = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(conv.weight, mean=0.0, std=(4.0 / (kernel * channels)) ** 0.5)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.pos_conv = nn.Sequential(weight_norm(conv, dim=2))

    def forward(self, x: Frames) -> Frames:
        """Return what is to be added to x."""
        conv = self.pos_conv.get_submodule("0")
        weight: Tensor = conv.weight  # type: ignore[assignment]
        bias: Tensor = conv.bias  # type: ignore[assignment]
        groups: int = conv.groups  # type: ignore[assignment]
        if x.device.type == "cpu":
            positions = convolve_by_fft(x.transpose(1, 2), weight, groups) + bias[:, None]
        else:
            dtype = self.products if self.training else torch.float32
            convolved = F.conv1d(
                x.transpose(1, 2).to(dtype),
                weight.to(dtype),
                bias.to(dtype),
                padding=weight.shape[-1] // 2,
                groups=groups,
            )
            # an even kernel with padding kernel // 2 gives one frame too many
            positions = convolved[..., : x.shape[1]].float()
        return F.gelu(positions).transpose(1, 2)


def convolve_by_fft(
    x: Float[Tensor, "batch channel frame"],
    weight: Float[Tensor, "out channel_of_group tap"],
    groups: int,
) -> Float[Tensor, "batch out frame"]:
    """Return the first frames of `F.conv1d(x, weight, padding=taps // 2, groups=groups)`.

    y_t = sum over k of w_k x_(t + k - taps // 2) is a product of spectra; the period is long enough
    for what wraps around to meet zeros alone. Ten times as fast as the sum on a CPU (`python -m
    benchmarks.tricks`).
    """
    y: Tensor = _ConvolutionByFFT.apply(x, weight, groups)
    return y


class _ConvolutionByFFT(torch.autograd.Function):
    """Keeps x and weights; spectra are made again for the gradients, a few groups at a time."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.groups = groups  # type: ignore[attr-defined]
        frames, taps = x.shape[-1], weight.shape[-1]
        period = _period(frames, taps)
        inputs, weights = x.unflatten(1, (groups, -1)), weight.unflatten(0, (groups, -1))
        parts = []
        for some in _some_groups(groups):
            response = torch.fft.rfft(weights[some], period).conj()
            spectrum = torch.fft.rfft(inputs[:, some], period)
            whole = _inverse("bgcf,gocf->bgof", spectrum, response, period)
            parts.append(torch.roll(whole, taps // 2, dims=-1)[..., :frames].flatten(1, 2))
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        groups: int = ctx.groups  # type: ignore[attr-defined]
        frames, taps = x.shape[-1], weight.shape[-1]
        period = _period(frames, taps)
        inputs, weights = x.unflatten(1, (groups, -1)), weight.unflatten(0, (groups, -1))
        outputs = grads[0].unflatten(1, (groups, -1))
        to_x, to_weight = [], []
        for some in _some_groups(groups):
            padded = F.pad(outputs[:, some], (0, period - frames))
            grad = torch.fft.rfft(torch.roll(padded, -(taps // 2), dims=-1))
            response = torch.fft.rfft(weights[some], period)
            spectrum = torch.fft.rfft(inputs[:, some], period)
            of_x = _inverse("bgof,gocf->bgcf", grad, response, period)
            of_weight = _inverse("bgof,bgcf->gocf", grad.conj(), spectrum, period)
            to_x.append(of_x[..., :frames].flatten(1, 2))
            to_weight.append(of_weight[..., :taps].flatten(0, 1))
        return torch.cat(to_x, dim=1), torch.cat(to_weight), None


def _inverse(equation: str, a: Tensor, b: Tensor, period: int) -> Tensor:
    """Multiply spectra, adding up what the equation leaves out, and go back to frames."""
    whole: Tensor = torch.fft.irfft(torch.einsum(equation, a, b), period)
    return whole


def _period(frames: int, taps: int) -> int:
    """Return a period for which what wraps around meets zeros, a multiple of 16 for speed."""
    return -(-max(frames + taps // 2, taps) // 16) * 16


def _some_groups(groups: int) -> list[slice]:
    """Return four groups at a time: all at once, the spectra would take as much as two layers."""
    return [slice(first, first + 4) for first in range(0, groups, 4)]
