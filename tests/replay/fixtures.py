"""The original's numbers on disk, and the models and settings that they belong to."""

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecg_core.models.classifier import Classifier
from ecg_core.models.encoder import Encoder, ModelParams
from ecg_core.models.fairseq_config import finetuning_params, pretraining_params
from ecg_core.models.fairseq_file import read_fairseq
from ecg_core.models.wav2vec2_cmsc import Wav2Vec2CMSC
from ecg_core.params import parse_section
from ecg_core.training.objectives import CriterionParams

OWN = Path(__file__).parents[1] / "golden"
"""Where the inputs and weights are that every fixture shares, if the folder has none of its own."""

Json = dict[str, Any]


class CannotReplay(Exception):
    """A fixture names something that this project has not, or lacks something it needs."""


@dataclass(frozen=True)
class Fixtures:
    """A folder of fixtures."""

    folder: Path

    def path(self, name: str) -> Path:
        """Return a shared file: the folder's own, else the project's copy."""
        for folder in (self.folder, OWN):
            if (folder / name).is_file():
                return folder / name
        raise CannotReplay(f"expected {name}, found none in {self.folder} or {OWN}")

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return the arrays of a shared .npz file."""
        with np.load(self.path(name)) as archive:
            return {key: archive[key] for key in archive}

    def json(self, name: str) -> Json:
        """Return a shared .json file."""
        content: Json = json.loads(self.path(name).read_text())
        return content

    def pair(self, stem: str) -> tuple[dict[str, np.ndarray], Json]:
        """Return the two files of one fixture, which both have to stand in the folder."""
        for suffix in (".npz", ".json"):
            if not (self.folder / (stem + suffix)).is_file():
                raise CannotReplay(f"expected {stem}{suffix}, found no such file")
        return self.arrays(f"{stem}.npz"), self.json(f"{stem}.json")

    def inputs(self) -> dict[str, np.ndarray]:
        """Return the segments that every fixture begins with."""
        return self.arrays("tiny_inputs.npz")

    def config(self) -> Json:
        """Return the public configuration of the tiny model."""
        return self.json("tiny_pretrain_cfg.json")

    def model(self, changes: Mapping[str, Any]) -> Wav2Vec2CMSC:
        """Return the tiny pretraining model with its weights and some other parameters."""
        config = self.config()
        name = self.path("tiny_pretrain_cfg.json")
        params = pretraining_params({**config, "model": {**config["model"], **changes}}, name)
        model = Wav2Vec2CMSC(params)
        model.load_state_dict(self.weights())
        return model

    def weights(self) -> dict[str, Tensor]:
        """Return the tiny model's weights; the project keeps them in the original's checkpoint."""
        if (self.folder / "tiny_state_dict.npz").is_file():
            return tensors(self.arrays("tiny_state_dict.npz"))
        return read_fairseq(self.path("tiny_pretrain_ckpt.pt")).tensors

    def classifier(self, changes: Mapping[str, Any]) -> Classifier:
        """Return the tiny classifier with its weights and some other parameters."""
        config = self.json("tiny_finetune_cfg.json")
        weights = tensors(self.arrays("c3_classifier_state_dict.npz"))
        name = self.path("tiny_finetune_cfg.json")
        model = {**config["model"], **changes}
        params = finetuning_params({**config, "model": model}, model["encoder_layers"], name)
        proj = weights["proj.weight"]
        classifier = Classifier(Encoder(params), len(proj), float(model["final_dropout"]))
        classifier.load_state_dict(weights)
        return classifier

    def criterion(self, changes: Mapping[str, Any]) -> CriterionParams:
        """Return the parameters of pretraining's loss."""
        values = {**self.config()["criterion"], **changes}
        known = {field.alias or name for name, field in CriterionParams.model_fields.items()}
        chosen = {key: value for key, value in values.items() if key in known}
        path = self.path("tiny_pretrain_cfg.json")
        ours = {"infonce_weight": 1.0, "gather": False}  # keys that the original does not have
        return parse_section("criterion", {**ours, **chosen}, CriterionParams, path)


def tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Return arrays as tensors."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def literal(value: object) -> object:
    """Return what a text such as "(0.9, 0.98)" stands for; anything else as it is."""
    if isinstance(value, str) and value[:1] in "([":
        return ast.literal_eval(value)
    return value


def latent_temp(given: object, default: tuple[float, float, float]) -> tuple[float, ...]:
    """Return start, end and decay of the quantizer's temperature; what is not given, by default."""
    given = literal(given)
    if given is None:
        return default
    numbers = [float(n) for n in given] if isinstance(given, list | tuple) else [float(given)]
    return (*numbers, *default[len(numbers) :])


def model_changes(settings: Json, model: ModelParams | None = None) -> Json:
    """Return the model's parameters that a fixture's settings name, at the top or under `model`."""
    known = {field.alias or name for name, field in ModelParams.model_fields.items()}
    known |= {"final_dropout"}
    given = {**settings.get("model", {}), **settings}
    changes = {key: literal(given[key]) for key in known if key in given}
    if "latent_temp" in changes and model is not None:
        changes["latent_temp"] = latent_temp(changes["latent_temp"], model.latent_temp)
    changes.pop("conv_feature_layers", None)
    return changes
