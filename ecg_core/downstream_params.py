"""What sections `finetune` and `identify` share, under the public configuration's names."""

from typing import Literal

from pydantic import Field, model_validator

from ecg_core.leads import lead_positions
from ecg_core.params import Section

Fraction = Field(ge=0, lt=1)


class DownstreamParams(Section):
    """A training that starts from the encoder."""

    max_epoch: int = Field(ge=1)
    max_update: int = Field(ge=0)
    batch_size: int = Field(ge=1)
    required_batch_size_multiple: int = Field(ge=1)
    update_freq: tuple[int, ...] = Field(min_length=1)
    lr: tuple[float, ...] = Field(min_length=1)
    clip_norm: float = Field(ge=0)
    adam_betas: tuple[float, float]
    adam_eps: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    lr_scheduler: Literal["fixed", "tri_stage"]
    warmup_updates: int = Field(ge=0)
    phase_ratio: tuple[float, float, float]
    init_lr_scale: float = Field(gt=0, le=1)
    final_lr_scale: float = Field(gt=0, le=1)
    leads_to_load: tuple[int | str, ...] | None
    init: Literal["pretrained", "scratch", "random_frozen"]
    pretrain_epoch: int | None = Field(ge=1)
    freeze: Literal["none", "conv", "encoder"]
    feature_grad_mult: float = Field(gt=0)
    freeze_finetune_updates: int = Field(ge=0)
    dropout: float = Fraction
    attention_dropout: float = Fraction
    activation_dropout: float = Fraction
    encoder_layerdrop: float = Fraction
    dropout_input: float = Fraction

    @model_validator(mode="after")
    def _keys_fit(self) -> "DownstreamParams":
        lead_positions(self.leads_to_load)
        if self.lr_scheduler == "tri_stage" and not self.max_update:
            raise ValueError("max_update of at least 1, whose parts tri_stage's phases are")
        return self

    @property
    def encoder_is_frozen(self) -> bool:
        """Whether nothing but the head learns."""
        return self.freeze == "encoder" or self.init == "random_frozen"
