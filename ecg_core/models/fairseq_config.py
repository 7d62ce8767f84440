"""The configuration inside a fairseq-signals checkpoint, and this project's parameters for it.

`fairseq_config.json` holds the public code's own configurations (w2v_cmsc_rlm and diagnosis, all
keys, commit 6b9e137): what an exported checkpoint says of everything that is not the model.
"""

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ecg_core.models.conv_features import ConvLayer
from ecg_core.models.encoder import ModelParams
from ecg_core.models.model_file import BadCheckpoint
from ecg_core.params import BadParams, parse_section

Config = dict[str, Any]

_TEMPLATES = Path(__file__).with_name("fairseq_config.json")

PRETRAINING, FINETUNING = "wav2vec2_cmsc", "ecg_transformer_classifier"

ENCODER_KEYS = (
    "in_d",
    "extractor_mode",
    "conv_feature_layers",
    "conv_bias",
    "feature_grad_mult",
    "encoder_layers",
    "encoder_embed_dim",
    "encoder_ffn_embed_dim",
    "encoder_attention_heads",
    "layer_norm_first",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "encoder_layerdrop",
    "dropout_input",
    "conv_pos",
    "conv_pos_groups",
)
"""What a finetuned model has; the rest of the model's parameters belongs to pretraining's heads."""

DROPPED_OUT = ("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "dropout_input")  # fmt: skip # noqa: E501
"""What finetuning sets anew (method.md 5.8)."""

_TERM = re.compile(r"\[((?:\(\d+,\d+,\d+\),?)+)\](?:\*(\d+))?")
_LAYER = re.compile(r"\((\d+),(\d+),(\d+)\)")
_MOST_LAYERS = 1000


def template(kind: Literal["pretraining", "finetuning"]) -> Config:
    """Return a public configuration with all its keys."""
    config: Config = json.loads(_TEMPLATES.read_text())[kind]
    return config


def parse_conv_layers(text: str) -> tuple[ConvLayer, ...]:
    """Parse `[(256, 2, 2)] * 4` or a sum of such terms, without executing anything.

    Raises ValueError for any other text.
    """
    layers: list[ConvLayer] = []
    for term in "".join(text.split()).split("+"):
        match = _TERM.fullmatch(term)
        if not match or len(match[2] or "1") > len(str(_MOST_LAYERS)):
            raise ValueError(f"expected layers like [(256, 2, 2)] * 4, found {text[:80]!r}")
        block = [(int(c), int(k), int(s)) for c, k, s in _LAYER.findall(match[1])]
        layers += block * min(int(match[2] or 1), _MOST_LAYERS)
    if not layers or min(min(layer) for layer in layers) < 1:
        raise ValueError(f"expected layers of at least 1, found {text[:80]!r}")
    return tuple(layers)


def format_conv_layers(layers: tuple[ConvLayer, ...]) -> str:
    """Write layers as the public configuration does: equal ones once, with their number."""
    if len(set(layers)) == 1:
        return f"[{layers[0]}] * {len(layers)}"
    return str([tuple(layer) for layer in layers])


def pretraining_params(config: Mapping[str, Any], path: Path) -> ModelParams:
    """Return the parameters of a pretrained checkpoint's own configuration.

    Raises BadCheckpoint for what this project has not: normalised input, a target GLU, ...
    """
    model, task = config["model"], config.get("task")
    for key in ("normalize", "filter", "same_quantizer", "target_glu"):
        for section, values in (("model", model), ("task", task)):
            if isinstance(values, dict) and values.get(key):
                found = f"{section}.{key}: expected false, found {values[key]!r}"
                raise BadCheckpoint(f"{path}: cfg.{found}")
    # before 2023-05-04 there was no such key and every model was masked (method.md 1.2)
    return _params({"apply_mask": True, **model}, path)


def finetuning_params(config: Mapping[str, Any], depth: int, path: Path) -> ModelParams:
    """Return the parameters of a finetuned checkpoint's encoder.

    Its dimensions are those of the pretrained model it began with, which the public code keeps
    under `cfg.model.args`; where that is empty, `cfg.model` has them, except the depth, which that
    section does not decide (method.md 5.8): `depth` counts the layers that are there.
    """
    model = config["model"]
    values = {**template("pretraining")["model"], "encoder_layers": depth}
    begun_with = model.get("args")
    if isinstance(begun_with, dict) and isinstance(begun_with.get("model"), dict):
        values |= begun_with["model"]
        values |= {key: model[key] for key in (*DROPPED_OUT, "feature_grad_mult") if key in model}
        return pretraining_params({"model": values, "task": begun_with.get("task")}, path)
    chosen = {key: model[key] for key in ENCODER_KEYS if key in model}
    chosen |= {key: model.get(key, False) for key in ("normalize", "filter")}
    return pretraining_params(
        {**config, "model": values | chosen | {"encoder_layers": depth}}, path
    )


def exported_config(kind: str, params: ModelParams, n_classes: int) -> Config:
    """Return the configuration with which the public code builds the same model."""
    config = copy.deepcopy(template("pretraining" if kind == "pretrained" else "finetuning"))
    values = params.model_dump(mode="json", by_alias=True)
    values["conv_feature_layers"] = format_conv_layers(params.conv_feature_layers)
    if kind == "pretrained":
        values["latent_temp"] = list(params.latent_temp)
        config["model"] |= {key: values[key] for key in config["model"] if key in values}
        return config
    config["model"] |= {key: values[key] for key in ENCODER_KEYS}
    config["model"]["num_labels"] = n_classes
    return config


def _params(model: Mapping[str, Any], path: Path) -> ModelParams:
    names = [field.alias or name for name, field in ModelParams.model_fields.items()]
    values = {name: model[name] for name in names if name in model}
    values |= {"_name": PRETRAINING, "attend_across": "frames"}
    try:
        if isinstance(values.get("conv_feature_layers"), str):
            values["conv_feature_layers"] = parse_conv_layers(values["conv_feature_layers"])
        return parse_section("cfg.model", values, ModelParams, path)
    except ValueError as error:
        raise BadCheckpoint(f"{path}: cfg.model.conv_feature_layers: {error}") from None
    except (BadParams, TypeError) as error:
        raise BadCheckpoint("; ".join(str(error).splitlines())) from None
