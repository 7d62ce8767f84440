"""W2V + CMSC: masked frames are told from their segment's other frames by quantised targets."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ecg_core.losses import feature_penalty
from ecg_core.models.encoder import Encoder, ModelParams, Source, SourcePadding, pool
from ecg_core.models.masking import draw_negatives, span_mask
from ecg_core.models.quantizer import GumbelQuantizer, gumbel_noise


class Draws(NamedTuple):
    """Everything that chance decides in one forward pass, dropout apart."""

    span_mask: Bool[Tensor, "batch frame"]
    """True hides a frame; every row hides the same number."""
    negatives: Int[Tensor, "batch masked negative"]
    """Positions among a row's hidden frames."""
    noise: Float[Tensor, "choice entry"] | None
    """Gumbel noise, a row for each (batch, masked, group); None chooses by argmax."""


class PretrainOutput(NamedTuple):
    """What the losses need."""

    logits: Float[Tensor, "batch masked candidate"]
    """Cosine / logit_temp, the true target first; -inf where a negative equals it."""
    features_penalty: Float[Tensor, ""]
    pooled: Float[Tensor, "batch channel"]
    prob_perplexity: Float[Tensor, ""]
    code_perplexity: Float[Tensor, ""]
    n_codes: int
    codes: Float[Tensor, "batch masked code"]
    """Quantised targets before their projection."""
    targets: Float[Tensor, "batch masked channel"]
    frames: Float[Tensor, "batch frame channel"]


class Wav2Vec2CMSC(Encoder):
    """The encoder with the heads of pretraining; names and shapes as in the public checkpoints."""

    def __init__(self, params: ModelParams) -> None:
        super().__init__(params)
        self.mask_emb = nn.Parameter(torch.rand(params.encoder_embed_dim))
        self.quantizer = GumbelQuantizer(
            params.feature_channels, params.latent_vars, params.latent_groups, params.code_channels
        )
        self.project_q = nn.Linear(params.code_channels, params.final_dim)
        self.final_proj = nn.Linear(params.encoder_embed_dim, params.final_dim)
        self.dropout_features = nn.Dropout(params.dropout_features)

    def pretrain(
        self,
        source: Source,
        draws: Draws,
        temperature: float,
        padding: SourcePadding | None = None,
    ) -> PretrainOutput:
        """Run the figure of the paper: encode, mask, contextualise, quantise, compare."""
        features = self.features(source)
        penalty = feature_penalty(features)
        features = self.layer_norm(features.transpose(1, 2))
        frame_padding = self.frame_padding(padding)
        x = self.dropout_input(self.post_extract_proj(features))
        unmasked = self.dropout_features(features)

        hidden = draws.span_mask
        x = torch.where(hidden.unsqueeze(-1), self.mask_emb.to(x), x)
        frames = self.contextualise(x, frame_padding)

        batch = len(source)
        quantized = self.quantizer(
            unmasked[hidden].view(batch, -1, unmasked.shape[-1]), temperature, draws.noise
        )
        targets = self.project_q(quantized.codes)
        predicted = self.final_proj(frames[hidden].view(batch, -1, frames.shape[-1]))
        return PretrainOutput(
            logits=contrast(predicted, targets, draws.negatives, self.params.logit_temp),
            features_penalty=penalty,
            pooled=pool(frames, frame_padding),
            prob_perplexity=quantized.prob_perplexity,
            code_perplexity=quantized.code_perplexity,
            n_codes=self.params.latent_vars * self.params.latent_groups,
            codes=quantized.codes,
            targets=targets,
            frames=frames,
        )


def contrast(
    predicted: Float[Tensor, "batch masked channel"],
    targets: Float[Tensor, "batch masked channel"],
    negatives: Int[Tensor, "batch masked negative"],
    logit_temp: float,
) -> Float[Tensor, "batch masked candidate"]:
    """Compare each prediction with its own target, then with its negatives. method.md 2.8.

    Every prediction meets every target of its segment once, and the drawn ones are picked from
    that matrix: the numbers are those of gathering the vectors first, at a hundredth of the memory.
    """
    cosines = F.normalize(predicted.float(), dim=-1, eps=1e-8) @ F.normalize(
        targets.float(), dim=-1, eps=1e-8
    ).transpose(1, 2)
    equal = torch.stack([(row[:, None] == row[None, :]).all(-1) for row in targets.detach()])
    positive = cosines.diagonal(dim1=1, dim2=2).unsqueeze(-1)
    negative = cosines.masked_fill(equal, -torch.inf).gather(2, negatives)
    return torch.cat([positive, negative], dim=-1) / logit_temp


def draw(
    params: ModelParams,
    batch: int,
    n_samples: int,
    rng: np.random.Generator,
    generator: torch.Generator,
    lengths: np.ndarray | None = None,
) -> Draws:
    """Draw the masks, negatives and Gumbel noise of one micro-batch.

    `lengths` gives each row's frames that are not padding; None means that none is.
    """
    frames = params.frames(n_samples)
    mask = torch.ones(batch, frames, dtype=torch.bool)
    if params.apply_mask:
        mask = torch.from_numpy(
            span_mask(
                rng,
                np.full(batch, frames) if lengths is None else lengths,
                frames,
                params.mask_prob,
                params.mask_length,
                params.mask_selection,
                params.mask_other,
                same_number=lengths is None,
            )
        )
    masked = int(mask[0].sum())
    choices = batch * masked * params.latent_groups
    return Draws(
        span_mask=mask,
        negatives=draw_negatives(generator, batch, masked, params.num_negatives),
        noise=gumbel_noise((choices, params.latent_vars), generator),
    )
