"""Checkpoints of the public code (fairseq-signals), in both directions.

    python -m ecg_core.models.fairseq_checkpoint import checkpoint_last.pt model.safetensors
    python -m ecg_core.models.fairseq_checkpoint export model.safetensors checkpoint.pt

Pretrained models (wav2vec2_cmsc) and finetuned ones (ecg_transformer_classifier) both convert.
Names and shapes of the tensors are the public code's own here, so a conversion changes none of
them; the weight norm's names before 2025 are understood. A checkpoint is read, never run.
"""

import argparse
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecg_core.classes import CLASSES
from ecg_core.models.classifier import Classifier, save_classifier
from ecg_core.models.encoder import Encoder, ModelParams, model_params
from ecg_core.models.fairseq_config import exported_config, finetuning_params, pretraining_params
from ecg_core.models.fairseq_file import FairseqModel, is_pickle, is_zip, read_fairseq
from ecg_core.models.model_file import BadCheckpoint, load_exactly, read_model
from ecg_core.models.wav2vec2_cmsc import Wav2Vec2CMSC, save_pretraining
from ecg_core.params import Section
from ecg_core.refusal import Refusal

log = logging.getLogger(__name__)

_LAYERS = "encoder.layers."


class PretrainedParams(Section):
    """Section `pretrained`."""

    path: str | None


def import_pretrained(path: Path, target: Path) -> None:
    """Write the pretrained model of a checkpoint, ours or fairseq-signals', as one of ours.

    Raises BadCheckpoint when a tensor is missing, extra or of another shape, or the file is no
    pretrained model.
    """
    _require_file(path)
    if is_zip(path):
        stored = read_fairseq(path)
        _require_kind(stored.kind, "pretrained", path)
        params, tensors = pretraining_params(stored.config, path), stored.tensors
    else:
        own = read_model(path)
        _require_kind(own.kind, "pretrained", path)
        params, tensors = model_params(own.params, path), own.tensors
    save_pretraining(target, _pretraining_model(params, tensors, path))


def import_finetuned(path: Path, target: Path) -> None:
    """Write the finetuned classifier of a fairseq-signals checkpoint as one of ours."""
    _require_file(path)
    if not is_zip(path):
        raise BadCheckpoint(f"{path}: expected a .pt file of the public code, found another format")
    stored = read_fairseq(path)
    _require_kind(stored.kind, "classifier", path)
    save_classifier(target, _finetuned_model(stored, path))


def export(path: Path, target: Path) -> None:
    """Write a model of ours as a checkpoint that the public code loads."""
    _require_file(path)
    stored = read_model(path)
    if stored.kind == "pretrained":
        params, n_classes = model_params(stored.params, path), 0
        model: torch.nn.Module = _pretraining_model(params, stored.tensors, path)
    elif stored.kind == "classifier":
        params = model_params(stored.params["model"], path)
        n_classes = int(stored.params["n_classes"])
        model = Classifier(Encoder(params), n_classes, final_dropout=0.0)
        load_exactly(model, stored.tensors, path)
    else:
        raise BadCheckpoint(f"{path}: expected a pretrained model or a classifier, found a {stored.kind}")  # fmt: skip # noqa: E501
    if params.attend_across != "frames":
        raise BadCheckpoint(
            f"{path}: expected model.attend_across frames, found {params.attend_across}, which the "
            "public code has not had since 2022-10-30"
        )
    config = exported_config(stored.kind, params, n_classes)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(target.name + ".tmp")
    torch.save(_checkpoint(config, model), beside)
    beside.replace(target)


def _checkpoint(config: dict[str, Any], model: torch.nn.Module) -> dict[str, Any]:
    """Return the whole checkpoint, as the public code's would be before its first update."""
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    lr = config["lr_scheduler"]["lr"][0]
    history = {
        "criterion_name": "Wav2Vec2WithCMSCCriterion",
        "optimizer_name": "Adam",
        "lr_scheduler_state": {"lr": lr},
        "num_updates": 0,
    }
    if config["model"]["_name"] == "ecg_transformer_classifier":
        history["criterion_name"] = "BinaryCrossEntropyWithLogitsCriterion"
    group = {
        "lr": lr,
        "betas": (0.9, 0.98),
        "eps": config["optimizer"]["adam_eps"],
        "weight_decay": config["optimizer"]["weight_decay"],
        "amsgrad": False,
        "params": list(range(len(tensors))),
    }
    return {
        "args": None,
        "cfg": config,
        "model": tensors,
        "criterion": None,
        "optimizer_history": [history],
        "task_state": {},
        "extra_state": {
            "metrics": {},
            "previous_training_time": 0.0,
            "train_iterator": {"epoch": 1},
        },
        "last_optimizer_state": {"state": {}, "param_groups": [group]},
    }


def _pretraining_model(
    params: ModelParams, tensors: Mapping[str, Tensor], path: Path
) -> Wav2Vec2CMSC:
    model = Wav2Vec2CMSC(params)
    try:
        load_exactly(model, tensors, path)
    except BadCheckpoint as error:
        found = _depth(tensors, _LAYERS)
        if found == params.encoder_layers:
            raise
        raise BadCheckpoint(
            f"{path}: expected tensors of {params.encoder_layers} encoder layers, as its own "
            f"configuration says, found {found}; {str(error).removeprefix(f'{path}: ')}"
        ) from None
    return model


def _finetuned_model(stored: FairseqModel, path: Path) -> Classifier:
    labels = stored.config["model"].get("num_labels")
    if labels != len(CLASSES):
        raise BadCheckpoint(
            f"{path}: cfg.model.num_labels: expected the {len(CLASSES)} scored classes, found "
            f"{labels!r}"
        )
    depth = _depth(stored.tensors, "encoder." + _LAYERS)
    params = finetuning_params(stored.config, depth, path)
    classifier = Classifier(Encoder(params), len(CLASSES), final_dropout=0.0)
    load_exactly(classifier, stored.tensors, path)
    return classifier


def _depth(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({n[len(prefix) :].split(".")[0] for n in tensors if n.startswith(prefix)})


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise BadCheckpoint(f"{path}: expected a checkpoint, found no such file")
    if is_pickle(path):
        raise BadCheckpoint(
            f"{path}: expected a safetensors file or a zip file of torch.save, found a bare "
            "pickle, which is not read: it could run code"
        )


def _require_kind(found: str, wanted: str, path: Path) -> None:
    words = {"pretrained": "a pretrained model", "classifier": "a finetuned classifier"}
    if found != wanted:
        raise BadCheckpoint(f"{path}: expected {words[wanted]}, found {words.get(found, found)}")


def _import(path: Path, target: Path) -> None:
    _require_file(path)
    finetuned = is_zip(path) and read_fairseq(path).kind == "classifier"
    (import_finetuned if finetuned else import_pretrained)(path, target)


def main() -> None:
    """Convert one checkpoint, as the command line asks."""
    parser = argparse.ArgumentParser(
        prog="python -m ecg_core.models.fairseq_checkpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "direction", choices=("import", "export"), help="from or to fairseq-signals"
    )
    parser.add_argument("source", type=Path, metavar="IN", help="the checkpoint to read")
    parser.add_argument("target", type=Path, metavar="OUT", help="the checkpoint to write")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        (_import if asked.direction == "import" else export)(asked.source, asked.target)
    except Refusal as refusal:
        sys.exit(f"error: {refusal}")
    log.info("%s: written", asked.target)


if __name__ == "__main__":
    main()
