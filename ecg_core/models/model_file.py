"""Checkpoints of models: safetensors that carry the parameters of their own model."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ecg_core.outputs import whole
from ecg_core.refusal import Refusal

log = logging.getLogger(__name__)


class BadCheckpoint(Refusal):
    """A checkpoint cannot be used; the message names the file, the expected and the found."""


class StoredModel(NamedTuple):
    """What a checkpoint holds."""

    kind: str
    params: dict[str, Any]
    tensors: dict[str, Tensor]


def save_model(path: Path, kind: str, params: Mapping[str, Any], model: nn.Module) -> None:
    """Write a model's tensors with its kind and parameters, whole or not at all.

    The same weights give the same bytes: no time, path or version is stored.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    # one entry: the order of several would differ between runs
    metadata = {"model": json.dumps({"kind": kind, "params": params}, sort_keys=True)}
    with whole(path) as beside:
        try:
            save_file(tensors, beside, metadata=metadata)
        except SafetensorError as error:  # a full disk, in its own words
            raise OSError(str(error)) from None


def read_model(path: Path) -> StoredModel:
    """Read a checkpoint that `save_model` wrote; nothing in it is executed."""
    if not path.is_file():
        raise BadCheckpoint(f"{path}: expected a checkpoint, found no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise BadCheckpoint(f"{path}: expected a whole safetensors file, found: {error}") from None
    if "model" not in metadata:
        raise BadCheckpoint(f"{path}: expected the model's parameters in the file, found none")
    try:
        model = json.loads(metadata["model"])
        return StoredModel(str(model["kind"]), dict(model["params"]), tensors)
    except (ValueError, TypeError, KeyError) as error:
        found = f"{type(error).__name__}: {error}"
        raise BadCheckpoint(f"{path}: expected kind and params of a model, found {found}") from None


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors into a module; refuse any that is missing, extra or of another shape."""
    own = module.state_dict()
    problems = [f"missing {name} {tuple(own[name].shape)}" for name in own if name not in tensors]
    problems += [
        f"extra {name} {tuple(tensors[name].shape)}" for name in tensors if name not in own
    ]
    problems += [
        f"{name}: expected {tuple(own[name].shape)}, found {tuple(tensors[name].shape)}"
        for name in own
        if name in tensors and own[name].shape != tensors[name].shape
    ]
    if problems:
        raise BadCheckpoint(
            f"{path}: {len(problems)} tensors do not fit the model: " + "; ".join(problems)
        )
    module.load_state_dict(dict(tensors))
    log.info(
        "%s: loaded %d tensors, %d parameters",
        path,
        len(own),
        sum(tensor.numel() for tensor in own.values()),
    )
