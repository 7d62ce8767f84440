"""The encoder that pretraining trains and every downstream task uses."""

from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from ecg_core.models.conv_features import ConvFeatures, ConvLayer, n_frames, scale_gradient
from ecg_core.models.dropout import dropout
from ecg_core.models.masking import Selection
from ecg_core.models.model_file import BadCheckpoint, StoredModel, load_exactly, read_model
from ecg_core.models.positions import PositionalConv
from ecg_core.models.quantizer import temperature
from ecg_core.models.transformer import TransformerEncoder
from ecg_core.params import Section, parse_section

Fraction = Field(ge=0, lt=1)
Nothing = Field(ge=0, le=0)
Source = Float[Tensor, "batch lead sample"]
"""Segments in millivolt, leads in the order I ... V6; a missing lead is zero."""
SourcePadding = Bool[Tensor, "batch lead sample"]
"""True marks padding, the same for all leads of a row."""


@runtime_checkable
class SourceBatch(Protocol):
    """What the model reads of a batch."""

    @property
    def source(self) -> Tensor: ...
    @property
    def padding(self) -> Tensor | None: ...


class ModelParams(Section):
    """Section `model`, under the public configuration's names (method.md 1.2)."""

    name: Literal["wav2vec2_cmsc"] = Field(alias="_name")
    in_d: int = Field(ge=1)
    extractor_mode: Literal["default", "layer_norm"]
    conv_feature_layers: tuple[ConvLayer, ...] = Field(min_length=1)
    conv_bias: bool
    feature_grad_mult: float = Field(ge=0)
    encoder_layers: int = Field(ge=1)
    encoder_embed_dim: int = Field(ge=1)
    encoder_ffn_embed_dim: int = Field(ge=1)
    encoder_attention_heads: int = Field(ge=1)
    layer_norm_first: Literal[False]
    attend_across: Literal["frames", "batch"]
    dropout: float = Fraction
    attention_dropout: float = Fraction
    activation_dropout: float = Fraction
    encoder_layerdrop: float = Fraction
    dropout_input: float = Fraction
    dropout_features: float = Fraction
    conv_pos: int = Field(ge=1)
    conv_pos_groups: int = Field(ge=1)
    apply_mask: bool
    mask_prob: float = Field(gt=0, lt=1)
    mask_length: int = Field(ge=1)
    mask_selection: Selection
    mask_other: float = Field(ge=0)
    no_mask_overlap: Literal[False]
    mask_min_space: Literal[1]
    mask_channel_prob: float = Nothing
    quantize_targets: Literal[True]
    quantize_input: Literal[False]
    latent_vars: int = Field(ge=1)
    latent_groups: int = Field(ge=1)
    latent_dim: int = Field(ge=0)
    latent_temp: tuple[float, float, float]
    final_dim: int = Field(ge=1)
    logit_temp: float = Field(gt=0)
    num_negatives: int = Field(ge=1)
    negatives_from_everywhere: Literal[False]
    cross_sample_negatives: Literal[0]
    codebook_negatives: Literal[0]

    @model_validator(mode="after")
    def _dimensions_divide(self) -> "ModelParams":
        for whole, part in (
            ("encoder_embed_dim", "encoder_attention_heads"),
            ("encoder_embed_dim", "conv_pos_groups"),
            ("latent_dim" if self.latent_dim else "final_dim", "latent_groups"),
        ):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(f"{whole} to be a multiple of {part}")
        return self

    @property
    def feature_channels(self) -> int:
        """Channels of the last convolution."""
        return self.conv_feature_layers[-1][0]

    @property
    def code_channels(self) -> int:
        """Width of a quantised target before its projection."""
        return self.latent_dim or self.final_dim

    def temperature(self, update: int) -> float:
        """Return the quantizer's temperature after so many finished updates."""
        return temperature(update, *self.latent_temp)

    def frames(self, n_samples: int) -> int:
        """Return how many frames the model makes of so many samples."""
        return n_frames(n_samples, self.conv_feature_layers)


class Encoder(nn.Module):
    """Convolutions, projection, positions and transformer; calling it gives pooled segments."""

    def __init__(self, params: ModelParams) -> None:
        super().__init__()
        channels, width = params.feature_channels, params.encoder_embed_dim
        self.params = params
        self.encoder = TransformerEncoder(
            layers=params.encoder_layers,
            channels=width,
            ffn_channels=params.encoder_ffn_embed_dim,
            heads=params.encoder_attention_heads,
            dropout=params.dropout,
            attention_dropout=params.attention_dropout,
            activation_dropout=params.activation_dropout,
            layerdrop=params.encoder_layerdrop,
            attend_across=params.attend_across,
        )
        self.feature_extractor = ConvFeatures(
            params.in_d, params.conv_feature_layers, params.extractor_mode, params.conv_bias
        )
        self.post_extract_proj: nn.Module = nn.Identity()
        if channels != width:
            self.post_extract_proj = nn.Linear(channels, width)
        self.conv_pos = PositionalConv(width, params.conv_pos, params.conv_pos_groups)
        self.layer_norm = nn.LayerNorm(channels)

    def features(self, source: Source) -> Float[Tensor, "batch channel frame"]:
        """Return the convolutions' output; its gradient is scaled by `feature_grad_mult`."""
        if self.params.feature_grad_mult == 0:
            with torch.no_grad():
                frozen: Tensor = self.feature_extractor(source)
            return frozen
        return scale_gradient(self.feature_extractor(source), self.params.feature_grad_mult)

    def frame_padding(self, padding: SourcePadding | None) -> Bool[Tensor, "batch frame"] | None:
        """Return which frames are padding, or None where nothing is padded. method.md 2.9."""
        if padding is None or not bool(padding.any()):
            return None
        lengths = (~padding).sum(-1)
        if not bool((lengths == lengths[:, :1]).all()):
            raise ValueError(f"expected all leads of a row equally long, found {lengths.tolist()}")
        kept = [self.params.frames(length) for length in lengths[:, 0].tolist()]
        frames = torch.arange(self.params.frames(padding.shape[-1]), device=padding.device)
        return frames >= torch.tensor(kept, device=padding.device)[:, None]

    def project(
        self, features: Float[Tensor, "batch frame feature"]
    ) -> Float[Tensor, "batch frame channel"]:
        """Bring features to the transformer's width, with dropout."""
        return dropout(self.post_extract_proj(features), self.params.dropout_input, self.training)

    def contextualise(
        self, x: Float[Tensor, "batch frame channel"], padding: Bool[Tensor, "batch frame"] | None
    ) -> Float[Tensor, "batch frame channel"]:
        """Add positions and run the transformer."""
        contextual: Tensor = self.encoder(x + self.conv_pos(x), padding)
        return contextual

    def represent(
        self, source: Source, padding: SourcePadding | None = None
    ) -> tuple[Float[Tensor, "batch frame channel"], Bool[Tensor, "batch frame"] | None]:
        """Return the contextual frames of whole segments, and which of them are padding."""
        features = self.layer_norm(self.features(source).transpose(1, 2))
        frame_padding = self.frame_padding(padding)
        x = self.project(features)
        return self.contextualise(x, frame_padding), frame_padding

    def forward(
        self, source: Source, padding: SourcePadding | None = None
    ) -> Float[Tensor, "batch channel"]:
        """Return one vector a segment, the mean over its frames."""
        return pool(*self.represent(source, padding))


def pool(
    frames: Float[Tensor, "batch frame channel"], padding: Bool[Tensor, "batch frame"] | None
) -> Float[Tensor, "batch channel"]:
    """Average each channel over the frames where it is not zero, padding apart. method.md 2.10."""
    if padding is not None:
        frames = frames.masked_fill(padding.unsqueeze(-1), 0.0)
    # a channel that is zero throughout is 0, not 0 / 0
    return frames.sum(1) / (frames != 0).sum(1).clamp_min(1)


def load_encoder(path: Path) -> Encoder:
    """Return the encoder of a checkpoint of ours, pretrained or trained further, in eval mode.

    Raises BadCheckpoint when the file is none, or its tensors do not fit its own parameters.
    """
    stored = read_model(path)
    if stored.kind not in ("pretrained", "classifier", "arcface"):
        raise BadCheckpoint(f"{path}: expected a model with an encoder, found a {stored.kind}")
    params = stored.params if stored.kind == "pretrained" else stored.params["model"]
    encoder = Encoder(model_params(params, path))
    load_exactly(encoder, encoder_tensors(stored), path)
    return encoder.train(False)


_HEADS = ("mask_emb", "quantizer.", "project_q.", "final_proj.")


def encoder_tensors(stored: StoredModel) -> dict[str, Tensor]:
    """Return the encoder's tensors among a checkpoint's, under the encoder's own names."""
    if stored.kind == "pretrained":
        return {n: tensor for n, tensor in stored.tensors.items() if not n.startswith(_HEADS)}
    prefix = "encoder."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in stored.tensors.items()
        if name.startswith(prefix)
    }


def model_params(values: dict[str, Any], path: Path) -> ModelParams:
    """Return the model parameters that a checkpoint carries."""
    return parse_section("model", values, ModelParams, path)
