"""The post-norm transformer."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ecg_core.device import CommonParams
from ecg_core.models.attention import attention
from ecg_core.models.dropout import dropout
from ecg_core.models.inner import gelu_linear
from ecg_core.models.positions import PositionalConv
from ecg_core.models.precision import DTYPES, Linear
from ecg_core.models.recomputed import Recomputed

Frames = Float[Tensor, "batch frame channel"]
FramePadding = Bool[Tensor, "batch frame"]
"""True marks a padded frame, which no frame attends to."""


class SelfAttention(Recomputed):
    """Multi-head scaled dot-product attention with separate projections.

    Computed again apart from the feed-forward behind it, so that the two are not held at once.
    """

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.k_proj = Linear(channels, channels)
        self.v_proj = Linear(channels, channels)
        self.q_proj = Linear(channels, channels)
        self.out_proj = Linear(channels, channels)

    def forward(self, x: Frames, padding: FramePadding | None) -> Frames:
        """Attend over the second axis of x; padded positions are no keys."""
        batch, frames, channels = x.shape

        def split_heads(projected: Tensor) -> Tensor:
            return projected.view(batch, frames, self.heads, -1).transpose(1, 2)

        # once for all three; the view has their gradients added up before the residual's is, which
        # is the order of activation checkpointing
        x = x.to(self.q_proj.dtype).view_as(x)
        attended = attention(
            split_heads(self.q_proj(x)),
            split_heads(self.k_proj(x)),
            split_heads(self.v_proj(x)),
            padding,
            self.dropout if self.training else 0.0,
        )
        merged: Tensor = self.out_proj(attended.transpose(1, 2).reshape(batch, frames, channels))
        return merged


class TransformerLayer(Recomputed):
    """Attention and feed-forward, each followed by dropout, the sum, and LayerNorm."""

    def __init__(
        self,
        channels: int,
        ffn_channels: int,
        heads: int,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.activation_dropout = activation_dropout
        self.self_attn = SelfAttention(channels, heads, attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(channels)
        self.fc1 = Linear(channels, ffn_channels)
        self.fc2 = Linear(ffn_channels, channels)
        self.final_layer_norm = nn.LayerNorm(channels)

    def forward(self, x: Frames, padding: FramePadding | None) -> Frames:
        """Return the next layer's frames."""
        attended = dropout(self.self_attn(x, padding), self.dropout, self.training)
        x = self.self_attn_layer_norm(x + attended)
        inner = gelu_linear(
            self.fc1(x), self.fc2, self.activation_dropout if self.training else 0.0
        )
        x = self.final_layer_norm(x + dropout(inner, self.dropout, self.training))
        return x


class TransformerEncoder(nn.Module):
    """LayerNorm, dropout, then the layers. method.md 2.4.

    `attend_across="batch"` is the paper-era code's attention, over the rows of the batch at one
    frame instead of over the frames of one row (method.md, Q1).
    """

    def __init__(
        self,
        layers: int,
        channels: int,
        ffn_channels: int,
        heads: int,
        dropout: float,
        attention_dropout: float,
        activation_dropout: float,
        layerdrop: float,
        attend_across: Literal["frames", "batch"],
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.layerdrop = layerdrop
        self.attend_across = attend_across
        self.layers = nn.ModuleList(
            TransformerLayer(
                channels, ffn_channels, heads, dropout, attention_dropout, activation_dropout
            )
            for _ in range(layers)
        )
        self.layer_norm = nn.LayerNorm(channels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, mean=0.0, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Frames, padding: FramePadding | None) -> Frames:
        """Return contextualised frames; padded ones are zeroed first and never attended to."""
        if padding is not None:
            x = x.masked_fill(padding.unsqueeze(-1), 0.0)
        x = dropout(self.layer_norm(x), self.dropout, self.training)
        across_batch = self.attend_across == "batch"
        if across_batch:
            x = x.transpose(0, 1)
            padding = None if padding is None else padding.transpose(0, 1)
        for layer in self.layers:
            if self.training and self.layerdrop > 0 and torch.rand(()).item() <= self.layerdrop:
                continue
            x = layer(x, padding)
        return x.transpose(0, 1) if across_batch else x


def set_arithmetic(model: nn.Module, common: CommonParams) -> None:
    """Give a model's parts common.precision and common.activation_checkpointing.

    Precision is that of the transformer's products in training. Everything else is fp32: sums,
    norms, softmax, losses, the feature convolutions (1 % of the arithmetic), heads, weights and
    optimizer.
    """
    for module in model.modules():
        if isinstance(module, Linear | PositionalConv):
            module.products = DTYPES[common.precision]
        if isinstance(module, Recomputed):
            module.checkpoints_activations = common.activation_checkpointing
