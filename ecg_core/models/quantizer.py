"""The Gumbel vector quantizer: the targets of the contrastive task."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Quantized(NamedTuple):
    """Codes and how widely the codebook is used."""

    codes: Float[Tensor, "batch masked channel"]
    code_perplexity: Float[Tensor, ""]
    prob_perplexity: Float[Tensor, ""]


def temperature(update: int, start: float, end: float, decay: float) -> float:
    """Return Gumbel's temperature after so many finished updates: max(start decay^update, end)."""
    return max(start * decay**update, end)


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw standard Gumbel noise, -log of an exponential variable."""
    return -torch.empty(shape).exponential_(generator=generator).log()


class GumbelQuantizer(nn.Module):
    """Choose one of `entries` vectors in each of `groups` groups and join them.

    Straight-through hard Gumbel softmax where noise is given, plain argmax where not. method.md
    2.6; Baevski et al. 2020 (wav2vec 2.0), section 2.
    """

    def __init__(self, channels: int, entries: int, groups: int, code_channels: int) -> None:
        super().__init__()
        self.groups = groups
        self.entries = entries
        self.vars = nn.Parameter(torch.rand(1, groups * entries, code_channels // groups))
        self.weight_proj = nn.Linear(channels, groups * entries)
        nn.init.normal_(self.weight_proj.weight, mean=0.0, std=1.0)
        nn.init.zeros_(self.weight_proj.bias)

    def forward(
        self,
        x: Float[Tensor, "batch masked channel"],
        temperature: float,
        noise: Float[Tensor, "choice entry"] | None,
    ) -> Quantized:
        """Quantise each vector; `noise` has a row for each (batch, masked, group)."""
        batch, masked, channels = x.shape
        logits = self.weight_proj(x.reshape(batch * masked, channels)).float()
        logits = logits.view(batch * masked, self.groups, self.entries)
        plain = F.one_hot(logits.argmax(-1), self.entries).to(logits)
        chosen = plain
        if noise is not None:
            soft = torch.softmax((logits + noise.view_as(logits)) / temperature, dim=-1)
            hard = F.one_hot(soft.argmax(-1), self.entries).to(soft)
            chosen = hard - soft.detach() + soft
        codebook = self.vars.view(self.groups, self.entries, -1)
        codes = torch.einsum("nge,ged->ngd", chosen, codebook)
        return Quantized(
            codes=codes.reshape(batch, masked, -1),
            code_perplexity=_perplexity(plain.mean(0)).detach(),
            prob_perplexity=_perplexity(torch.softmax(logits, dim=-1).mean(0)),
        )


def _perplexity(probabilities: Float[Tensor, "group entry"]) -> Float[Tensor, ""]:
    """Sum over the groups of exp(entropy); its largest value is groups x entries."""
    entropy = -(probabilities * torch.log(probabilities + 1e-7)).sum(-1)
    return entropy.exp().sum()
