"""A model small enough for loops."""

from pathlib import Path
from typing import Any

from ecg_core.device import CommonParams
from ecg_core.models.encoder import ModelParams
from ecg_core.params import read_section

PARAMS_FILE = Path(__file__).parents[2] / "params.yaml"

SMALL = {
    "conv_feature_layers": ((6, 2, 2), (8, 2, 2)),
    "encoder_layers": 1,
    "encoder_embed_dim": 12,
    "encoder_ffn_embed_dim": 10,
    "encoder_attention_heads": 3,
    "conv_pos": 4,
    "conv_pos_groups": 2,
    "latent_vars": 5,
    "latent_groups": 2,
    "final_dim": 4,
    "num_negatives": 3,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "dropout_input": 0.0,
    "dropout_features": 0.0,
}


def tiny_params(**changes: Any) -> ModelParams:
    """Return params.yaml's model at the smallest size, without dropout."""
    params = read_section("model", ModelParams, PARAMS_FILE)
    return params.model_copy(update={**SMALL, **changes})


def common(seed: int = 1, **changes: Any) -> CommonParams:
    """Return params.yaml's section `common` with another seed."""
    params = read_section("common", CommonParams, PARAMS_FILE)
    return params.model_copy(update={"seed": seed, **changes})
