"""What classification and identification share: the start from the encoder, and its rest."""

from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ecg_core.device import CommonParams
from ecg_core.models.encoder import (
    Encoder,
    Source,
    SourcePadding,
    encoder_tensors,
    model_params,
)
from ecg_core.models.model_file import BadCheckpoint, load_exactly, read_model
from ecg_core.models.transformer import set_arithmetic
from ecg_core.seeds import seed_of


class Downstream(nn.Module):
    """An encoder under a head."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.encoder_is_frozen = False
        """True leaves the encoder as it is for good: no gradients, no dropout."""
        self.encoder_rests = False
        """True runs the encoder without gradients for now (freeze_finetune_updates)."""

    def represent(
        self, source: Source, padding: SourcePadding | None
    ) -> tuple[Float[Tensor, "batch frame channel"], Bool[Tensor, "batch frame"] | None]:
        """Return the encoder's frames, and which of them are padding."""
        learns = not (self.encoder_rests or self.encoder_is_frozen)
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            return self.encoder.represent(source, padding)

    def train(self, mode: bool = True) -> "Downstream":
        """Switch dropout on or off; a frozen encoder never has any."""
        super().train(mode)
        self.encoder.train(mode and not self.encoder_is_frozen)
        return self


@runtime_checkable
class Start(Protocol):
    """How a downstream task starts: the keys that sections `finetune` and `identify` share."""

    @property
    def init(self) -> Literal["pretrained", "scratch", "random_frozen"]: ...
    @property
    def freeze(self) -> Literal["none", "conv", "encoder"]: ...
    @property
    def encoder_is_frozen(self) -> bool: ...
    @property
    def feature_grad_mult(self) -> float: ...
    @property
    def dropout(self) -> float: ...
    @property
    def attention_dropout(self) -> float: ...
    @property
    def activation_dropout(self) -> float: ...
    @property
    def encoder_layerdrop(self) -> float: ...
    @property
    def dropout_input(self) -> float: ...


def start_encoder(pretrained: Path, start: Start, common: CommonParams) -> Encoder:
    """Return the checkpoint's encoder, or its like at random, with the task's dropouts.

    Depth and width are the checkpoint's. Torch's generator is left where the head's first weights
    are to be drawn. method.md 5.8; raises BadCheckpoint when the file is no pretrained model.
    """
    stored = read_model(pretrained)
    if stored.kind != "pretrained":
        raise BadCheckpoint(f"{pretrained}: expected a pretrained model, found a {stored.kind}")
    frozen_features = start.freeze != "none" or start.encoder_is_frozen
    params = model_params(stored.params, pretrained).model_copy(
        update={
            "dropout": start.dropout,
            "attention_dropout": start.attention_dropout,
            "activation_dropout": start.activation_dropout,
            "encoder_layerdrop": start.encoder_layerdrop,
            "dropout_input": start.dropout_input,
            "feature_grad_mult": 0.0 if frozen_features else start.feature_grad_mult,
        }
    )
    torch.manual_seed(seed_of("initial weights", common.seed))
    encoder = Encoder(params)
    set_arithmetic(encoder, common)
    if start.init == "pretrained":
        load_exactly(encoder, encoder_tensors(stored), pretrained)
    return encoder
