"""The step as one would write it first, plain torch in fp32: what the pipeline's is timed against.

The same mathematics as `ecg_core.models` (base configuration: dropout 0.1, GELU, post-norm), with
`F.dropout`, `scaled_dot_product_attention(dropout_p=...)`, negatives picked from a similarity
matrix and fused AdamW. It imports nothing of the pipeline and is not to be touched again: a ratio
against it means the same in every version.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


@dataclass(frozen=True)
class Size:
    """What makes a model larger or smaller."""

    layers: int
    width: int
    inner: int
    heads: int
    channels: int
    positions: int
    position_groups: int
    entries: int
    final: int


class Layer(nn.Module):
    """Attention and feed-forward, post-norm."""

    def __init__(self, size: Size, inner_dropout: float, attention_dropout: float, dropout: float):
        super().__init__()
        self.heads = size.heads
        self.inner_dropout, self.attention_dropout = inner_dropout, attention_dropout
        self.dropout = dropout
        self.q, self.k, self.v, self.out = (nn.Linear(size.width, size.width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.fc1, self.fc2 = nn.Linear(size.width, size.inner), nn.Linear(size.inner, size.width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the next layer's frames."""
        batch, frames, width = x.shape
        q, k, v = (
            project(x).view(batch, frames, self.heads, -1).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=self.attention_dropout)
        attended = self.out(attended.transpose(1, 2).reshape(batch, frames, width))
        x = self.norm1(x + F.dropout(attended, self.dropout))
        inner = F.dropout(F.gelu(self.fc1(x)), self.inner_dropout)
        return self.norm2(x + F.dropout(self.fc2(inner), self.dropout))


class Encoder(nn.Module):
    """Convolutions, positions, transformer."""

    def __init__(
        self, size: Size, *, dropout: float, attention_dropout: float, inner_dropout: float
    ) -> None:
        super().__init__()
        self.dropout = dropout
        sides = [12] + [size.channels] * 4
        self.convs = nn.ModuleList(
            nn.Conv1d(sides[i], sides[i + 1], 2, stride=2, bias=False) for i in range(4)
        )
        self.group_norm = nn.GroupNorm(size.channels, size.channels)
        self.norm = nn.LayerNorm(size.channels)
        self.project = nn.Linear(size.channels, size.width)
        position = nn.Conv1d(
            size.width,
            size.width,
            size.positions,
            padding=size.positions // 2,
            groups=size.position_groups,
        )
        self.position = weight_norm(position, dim=2)
        self.input_norm = nn.LayerNorm(size.width)
        self.layers = nn.ModuleList(
            Layer(size, inner_dropout, attention_dropout, dropout) for _ in range(size.layers)
        )

    def features(self, source: Tensor) -> Tensor:
        """Return the convolutions' output, (batch, channel, frame)."""
        x = source
        for number, conv in enumerate(self.convs):
            x = conv(x)
            x = F.gelu(self.group_norm(x) if number == 0 else x)
        return x

    def contextualise(self, x: Tensor) -> Tensor:
        """Add positions, run the layers."""
        position = F.gelu(self.position(x.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)
        x = F.dropout(self.input_norm(x + position), self.dropout)
        for layer in self.layers:
            x = layer(x)
        return x


class Pretraining(Encoder):
    """W2V + CMSC."""

    def __init__(self, size: Size) -> None:
        super().__init__(size, dropout=0.1, attention_dropout=0.1, inner_dropout=0.0)
        self.entries = size.entries
        self.mask = nn.Parameter(torch.rand(size.width))
        self.codebook = nn.Parameter(torch.rand(2, size.entries, size.final // 2))
        self.choose = nn.Linear(size.channels, 2 * size.entries)
        self.project_target = nn.Linear(size.final, size.final)
        self.predict = nn.Linear(size.width, size.final)

    def loss(self, source: Tensor, hidden: Tensor, negatives: Tensor) -> tuple[Tensor, int]:
        """Return the summed loss and how many targets it has."""
        features = self.features(source)
        features = features * 0.1 + features.detach() * 0.9  # a tenth of the gradient
        penalty = features.pow(2).mean()
        normed = self.norm(features.transpose(1, 2))
        x = F.dropout(self.project(normed), 0.1)
        unmasked = F.dropout(normed, 0.1)
        x = torch.where(hidden.unsqueeze(-1), self.mask, x)
        frames = self.contextualise(x)

        batch = len(source)
        logits = self.choose(unmasked[hidden]).view(-1, 2, self.entries)
        chosen = F.gumbel_softmax(logits, tau=2.0, hard=True)
        codes = torch.einsum("nge,ged->ngd", chosen, self.codebook).flatten(1)
        targets = self.project_target(codes).view(batch, -1, codes.shape[1])
        predicted = self.predict(frames[hidden]).view(targets.shape)
        average = logits.softmax(-1).mean(0)
        perplexity = (-(average * (average + 1e-7).log()).sum(-1)).exp().sum()

        cosines = F.normalize(predicted, dim=-1) @ F.normalize(targets, dim=-1).transpose(1, 2)
        equal = (targets.unsqueeze(1) == targets.unsqueeze(2)).all(-1)
        drawn = cosines.masked_fill(equal, -torch.inf).gather(2, negatives)
        own = cosines.diagonal(dim1=1, dim2=2).unsqueeze(-1)
        candidates = (torch.cat([own, drawn], -1) / 0.1).flatten(0, 1)
        n = len(candidates)
        truth = torch.zeros(n, dtype=torch.int64)
        info_nce = F.cross_entropy(candidates, truth, reduction="sum")

        pooled = frames.sum(1) / (frames != 0).sum(1)
        unit = pooled / pooled.detach().norm(dim=1, keepdim=True)
        similarity = unit[0::2] @ unit[1::2].T / 0.1
        pair = torch.arange(batch // 2)
        cmsc = (F.cross_entropy(similarity, pair) + F.cross_entropy(similarity.T, pair)) / 2
        diversity = 1 - perplexity / (2 * self.entries)
        return info_nce + n * (0.1 * diversity + 10 * penalty + cmsc), n


class Classification(Encoder):
    """Finetuning with a frozen conv stack: dropout on the activations alone."""

    def __init__(self, size: Size) -> None:
        super().__init__(size, dropout=0.0, attention_dropout=0.0, inner_dropout=0.1)
        self.head = nn.Linear(size.width, 26)

    def loss(self, source: Tensor, labels: Tensor) -> tuple[Tensor, int]:
        """Return the summed loss and how many labels it has."""
        with torch.no_grad():
            features = self.features(source)
        frames = self.contextualise(self.project(self.norm(features.transpose(1, 2))))
        pooled = frames.sum(1) / (frames != 0).sum(1)
        loss = F.binary_cross_entropy_with_logits(self.head(pooled), labels, reduction="sum")
        return loss, labels.numel()


def step(model: Pretraining | Classification, optimizer: torch.optim.Optimizer, *batch: Tensor):
    """Do one update of one micro-batch; return its loss in nats a target."""
    optimizer.zero_grad(set_to_none=True)
    total, n = model.loss(*batch)
    total.backward()
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.div_(n)
    optimizer.step()
    return float(total.detach()) / n
