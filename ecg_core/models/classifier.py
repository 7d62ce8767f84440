"""The encoder with one linear layer: multi-label classification of segments."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ecg_core.classes import CLASSES
from ecg_core.device import CommonParams
from ecg_core.finetune_params import FinetuneParams
from ecg_core.models.downstream import Downstream, start_encoder
from ecg_core.models.dropout import dropout
from ecg_core.models.encoder import (
    Encoder,
    Source,
    SourceBatch,
    SourcePadding,
    model_params,
    pool,
)
from ecg_core.models.model_file import BadCheckpoint, load_exactly, read_model, save_model


class Classifier(Downstream):
    """Mean over frames, one linear layer. method.md 5.8."""

    def __init__(self, encoder: Encoder, n_classes: int, final_dropout: float) -> None:
        super().__init__(encoder)
        self.proj = nn.Linear(encoder.params.encoder_embed_dim, n_classes)
        self.final_dropout = final_dropout
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(
        self, source: Source, padding: SourcePadding | None = None
    ) -> Float[Tensor, "batch class"]:
        """Return a logit for each class."""
        frames, frame_padding = self.represent(source, padding)
        frames = dropout(frames, self.final_dropout, self.training)
        logits: Tensor = self.proj(pool(frames, frame_padding))
        return logits

    def learning(self) -> list[nn.Parameter]:
        """Return the parameters that finetuning changes."""
        return list((self.proj if self.encoder_is_frozen else self).parameters())


def pretrained_file(folder: Path, epoch: int | None) -> Path:
    """Return the checkpoint of a kept epoch, or of the last one."""
    name = "model" if epoch is None else f"epoch-{epoch:04d}"
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise BadCheckpoint(
            f"{path}: expected a pretrained model, found no such file (params.yaml: "
            "finetune.pretrain_epoch names one of checkpoint.keep_epochs)"
        )
    return path


def finetune_forward(
    classifier: Classifier, resting_updates: int
) -> Callable[[SourceBatch, int], Tensor]:
    """Return (batch, update) -> logits; the encoder rests for the first updates. method.md 5.8."""

    def forward(batch: SourceBatch, update: int) -> Tensor:
        classifier.encoder_rests = update < resting_updates
        logits: Tensor = classifier(batch.source, batch.padding)
        return logits

    return forward


@torch.no_grad()
def predict(
    classifier: Classifier, batches: Iterable[SourceBatch]
) -> Float[Tensor, "segment class"]:
    """Return the logits of all batches, on the CPU, in eval mode."""
    classifier.train(False)
    device = classifier.proj.weight.device
    return torch.cat([classifier(batch.source.to(device)).cpu() for batch in batches])


def build_classifier(
    pretrained: Path, finetune: FinetuneParams, common: CommonParams
) -> Classifier:
    """Return the classifier to finetune: the checkpoint's encoder, or its like at random."""
    encoder = start_encoder(pretrained, finetune, common)
    classifier = Classifier(encoder, len(CLASSES), finetune.final_dropout)
    classifier.encoder_is_frozen = finetune.encoder_is_frozen
    return classifier


def save_classifier(path: Path, classifier: Classifier) -> None:
    """Write a classifier with its parameters."""
    params = classifier.encoder.params.model_dump(mode="json", by_alias=True)
    n_classes = classifier.proj.out_features
    save_model(path, "classifier", {"model": params, "n_classes": n_classes}, classifier)


def load_classifier(path: Path, device: str = "cpu") -> Classifier:
    """Return a finetuned classifier in eval mode; raise BadCheckpoint when the file is none."""
    stored = read_model(path)
    if stored.kind != "classifier":
        raise BadCheckpoint(f"{path}: expected a finetuned classifier, found a {stored.kind} model")
    encoder = Encoder(model_params(stored.params["model"], path))
    classifier = Classifier(encoder, int(stored.params["n_classes"]), final_dropout=0.0)
    load_exactly(classifier, stored.tensors, path)
    classifier.to(device).train(False)
    return classifier
