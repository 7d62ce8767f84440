"""Read a fairseq-signals checkpoint: its tensors and its configuration, nothing executed."""

import re
import struct
import zipfile
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ecg_core.models.fairseq_config import FINETUNING, PRETRAINING
from ecg_core.models.model_file import BadCheckpoint

KEYS = (
    "args",
    "cfg",
    "model",
    "criterion",
    "optimizer_history",
    "task_state",
    "extra_state",
    "last_optimizer_state",
)
"""What the public code writes, in its order."""

_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY_SCALARS: list[Any] = [
    # numbers of metrics among the training state: constructors of plain values, nothing else
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
]

_WEIGHT_NORM = {
    # the same two tensors under the name they had before 2025-01-20
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}
_FOREIGN = re.compile(r"(?:GLOBAL|global:?|function) ([\w.]+\.\w+)")
_NAME = re.compile(r"[\w.]{1,200}")


class FairseqModel(NamedTuple):
    """What a checkpoint of the public code holds."""

    kind: str
    """pretrained or classifier"""
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    """Under this project's names, float32."""


def is_zip(path: Path) -> bool:
    """Return whether a file begins as torch.save's files do."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def is_pickle(path: Path) -> bool:
    """Return whether a file begins as a pickle without a zip file around it."""
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def read_fairseq(path: Path) -> FairseqModel:
    """Read a checkpoint of the public code; raise BadCheckpoint when it is none or not whole."""
    _require_whole(path)
    content = _load(path)
    if not isinstance(content, dict) or not {"cfg", "model"} <= set(content):
        found = ", ".join(map(str, content))[:200] if isinstance(content, dict) else type(content)
        raise BadCheckpoint(f"{path}: expected the keys {', '.join(KEYS)}, found {found}")
    config, tensors = content["cfg"], content["model"]
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise BadCheckpoint(f"{path}: expected a configuration with a section model, found none")
    name = config["model"].get("_name")
    kinds = {PRETRAINING: "pretrained", FINETUNING: "classifier"}
    if name not in kinds:
        raise BadCheckpoint(f"{path}: expected a model {' or '.join(kinds)}, found {name!r}")
    return FairseqModel(kinds[name], config, _own_names(tensors, path))


def _require_whole(path: Path) -> None:
    """Hold every part of the file against its checksum, a second for a base model."""
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = [i.filename for i in archive.infolist() if i.compress_type]
            torn = compressed[0] if compressed else archive.testzip()
    except (
        zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError, EOFError,
        struct.error, zlib.error, OverflowError,
    ) as error:  # fmt: skip
        raise BadCheckpoint(
            f"{path}: expected a whole file of torch.save, found: {error}"
        ) from None
    if torn:
        raise BadCheckpoint(f"{path}: expected a whole file of torch.save, found {torn} damaged")


def _load(path: Path) -> object:
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:
        foreign = _FOREIGN.search(str(error))
        found = f"a call of {foreign[1]}" if foreign else _short(error)
        raise BadCheckpoint(
            f"{path}: expected tensors and plain values alone, found {found}; nothing was executed"
        ) from None
    except (
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        EOFError,
        struct.error,
    ) as error:
        raise BadCheckpoint(
            f"{path}: expected a checkpoint of torch.save, found: {_short(error)}"
        ) from None
    return content


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def _holds_floats(value: object) -> bool:
    """Return whether a value is a plain tensor of floats with its numbers in memory."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    return value.device.type == "cpu" and value.is_floating_point()


def _own_names(tensors: object, path: Path) -> dict[str, Tensor]:
    if not isinstance(tensors, dict) or not tensors:
        raise BadCheckpoint(f"{path}: expected tensors by name, found {type(tensors).__name__}")
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadCheckpoint(f"{path}: expected names of tensors, found {name!r:.80}")
        if not _holds_floats(tensor):
            kind = str(tensor.dtype) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise BadCheckpoint(f"{path}: {name}: expected a tensor of floats, found {kind}")
        stem, _, last = name.rpartition(".")
        own = f"{stem}.{_WEIGHT_NORM[last]}" if last in _WEIGHT_NORM else name
        if own in renamed:
            raise BadCheckpoint(f"{path}: expected one {own}, found it under both of its names")
        renamed[own] = tensor.detach().float()
    return renamed
