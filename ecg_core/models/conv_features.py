"""The strided convolutions that turn leads over samples into features over frames."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ecg_core.models.recomputed import Recomputed

ConvLayer = tuple[int, int, int]
"""Channels, kernel, stride of one convolution."""


def n_frames(n_samples: int, layers: Sequence[ConvLayer]) -> int:
    """Return how many frames the convolutions make of so many samples (no padding)."""
    for _, kernel, stride in layers:
        n_samples = (n_samples - kernel) // stride + 1
    return n_samples


class ChannelsLast(nn.Module):
    """LayerNorm over the channels of (batch, channel, frame)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # index 1, where the public checkpoints have it (0 and 2 are transpositions there)
        self.add_module("1", nn.LayerNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (batch, channel, frame) over its channels."""
        norm: Tensor = self.get_submodule("1")(x.transpose(1, 2)).transpose(1, 2)
        return norm


class ConvFeatures(Recomputed):
    """Four convolutions with exact GELU; all leads are the first one's input channels.

    `default` normalises the first block alone, each channel over time (GroupNorm with as many
    groups as channels); `layer_norm` normalises every block over its channels. method.md 2.2.
    """

    def __init__(
        self,
        in_leads: int,
        layers: Sequence[ConvLayer],
        mode: Literal["default", "layer_norm"],
        bias: bool,
    ) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList()
        channels_in = in_leads
        for number, (channels, kernel, stride) in enumerate(layers):
            conv = nn.Conv1d(channels_in, channels, kernel, stride=stride, bias=bias)
            nn.init.kaiming_normal_(conv.weight)
            # index 1 was a dropout of p = 0: an Identity keeps the checkpoints' numbering
            block: list[nn.Module] = [conv, nn.Identity()]
            if mode == "layer_norm":
                block.append(ChannelsLast(channels))
            elif number == 0:
                block.append(nn.GroupNorm(channels, channels))
            self.conv_layers.append(nn.Sequential(*block, nn.GELU()))
            channels_in = channels

    def forward(self, source: Float[Tensor, "batch lead sample"]) -> Float[Tensor, "batch channel frame"]:  # fmt: skip # noqa: E501
        """Return the features of leads in millivolt."""
        for block in self.conv_layers:
            source = block(source)
        return source


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.scale, None  # type: ignore[attr-defined]


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """Return x unchanged; multiply its gradient by `scale` on the way back."""
    if scale == 1.0:
        return x
    scaled: Tensor = _ScaledGradient.apply(x, scale)
    return scaled
