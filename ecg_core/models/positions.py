"""The convolution that tells the transformer where a frame stands."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
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
    for what wraps around to meet zeros alone. 5 to 8 times faster than the sum on a CPU (`python -m
    benchmarks.tricks`).
    """
    batch, _, frames = x.shape
    out, channels, taps = weight.shape
    period = -(-max(frames + taps // 2, taps) // 16) * 16
    spectrum = torch.fft.rfft(x, period).view(batch, groups, channels, -1)
    response = torch.fft.rfft(weight, period).view(groups, out // groups, channels, -1)
    product = torch.einsum("bgcf,gocf->bgof", spectrum, response.conj())
    y = torch.fft.irfft(product.reshape(batch, out, -1), period)
    return torch.roll(y, taps // 2, dims=-1)[..., :frames]
