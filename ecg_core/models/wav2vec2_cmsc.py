"""W2V + CMSC: masked frames are told from their segment's other frames by quantised targets."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ecg_core.device import CommonParams
from ecg_core.losses import feature_penalty
from ecg_core.models.dropout import dropout
from ecg_core.models.encoder import Encoder, ModelParams, Source, SourceBatch, SourcePadding, pool
from ecg_core.models.masking import draw_negatives, span_mask
from ecg_core.models.model_file import save_model
from ecg_core.models.quantizer import GumbelQuantizer, gumbel_noise
from ecg_core.models.transformer import set_arithmetic
from ecg_core.seeds import numpy_generator, seed_of, torch_generator


class Draws(NamedTuple):
    """Everything that chance decides in one forward pass, dropout apart."""

    span_mask: Bool[Tensor, "batch frame"]
    """True hides a frame; every row hides the same number."""
    negatives: Int[Tensor, "batch masked negative"]
    """Positions among a row's hidden frames."""
    noise: Float[Tensor, "choice entry"] | None
    """Gumbel noise, a row for each (batch, masked, group); None chooses by argmax."""

    def to(self, device: torch.device) -> "Draws":
        """Return the draws on a device."""
        noise = None if self.noise is None else self.noise.to(device)
        return Draws(self.span_mask.to(device), self.negatives.to(device), noise)


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
        x = self.project(features)
        unmasked = dropout(features, self.params.dropout_features, self.training)

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
    params: ModelParams, rows: int, n_samples: int, seed: int, update: int, micro: int
) -> Draws:
    """Draw what belongs to micro-batch number `micro` of update number `update`."""
    frames = params.frames(n_samples)
    mask = torch.ones(rows, frames, dtype=torch.bool)
    if params.apply_mask:
        drawn = span_mask(
            numpy_generator("span mask", seed, update, micro),
            np.full(rows, frames),
            frames,
            params.mask_prob,
            params.mask_length,
            params.mask_selection,
            params.mask_other,
            same_number=True,
        )
        mask = torch.from_numpy(drawn)
    masked = int(mask[0].sum())
    negatives = torch_generator("negatives", seed, update, micro)
    noise = torch_generator("gumbel noise", seed, update, micro)
    choices = rows * masked * params.latent_groups
    return Draws(
        span_mask=mask,
        negatives=draw_negatives(negatives, rows, masked, params.num_negatives),
        noise=gumbel_noise((choices, params.latent_vars), noise),
    )


def build_pretraining(params: ModelParams, common: CommonParams) -> Wav2Vec2CMSC:
    """Return the model with its first weights."""
    torch.manual_seed(seed_of("initial weights", common.seed))
    model = Wav2Vec2CMSC(params)
    set_arithmetic(model, common)
    return model


def save_pretraining(path: Path, model: Wav2Vec2CMSC) -> None:
    """Write a pretraining model with its parameters."""
    save_model(path, "pretrained", model.params.model_dump(mode="json", by_alias=True), model)


def pretrain_forward(
    model: Wav2Vec2CMSC, seed: int, device: torch.device
) -> Callable[[SourceBatch, int, int], PretrainOutput]:
    """Return (batch, update, micro) -> output: the forward pass with its own chance."""

    def forward(batch: SourceBatch, update: int, micro: int) -> PretrainOutput:
        rows, _, n_samples = batch.source.shape
        draws = draw(model.params, rows, n_samples, seed, update, micro).to(device)
        tau = model.params.temperature(update)
        return model.pretrain(batch.source, draws, tau, batch.padding)

    return forward
