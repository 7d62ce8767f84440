"""The encoder with one linear layer: multi-label classification of segments."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ecg_core.classes import CLASSES
from ecg_core.finetune_params import FinetuneParams
from ecg_core.models.encoder import (
    Encoder,
    Source,
    SourceBatch,
    SourcePadding,
    encoder_tensors,
    model_params,
    pool,
)
from ecg_core.models.model_file import BadCheckpoint, load_exactly, read_model, save_model
from ecg_core.seeds import seed_of


class Classifier(nn.Module):
    """Mean over frames, one linear layer. method.md 5.8."""

    def __init__(self, encoder: Encoder, n_classes: int, final_dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.proj = nn.Linear(encoder.params.encoder_embed_dim, n_classes)
        self.final_dropout = final_dropout
        self.encoder_is_frozen = False
        """True leaves the encoder as it is for good: no gradients, no dropout."""
        self.encoder_rests = False
        """True runs the encoder without gradients for now (freeze_finetune_updates)."""
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(
        self, source: Source, padding: SourcePadding | None = None
    ) -> Float[Tensor, "batch class"]:
        """Return a logit for each class."""
        learns = not (self.encoder_rests or self.encoder_is_frozen)
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            frames, frame_padding = self.encoder.represent(source, padding)
        frames = F.dropout(frames, self.final_dropout, self.training)
        logits: Tensor = self.proj(pool(frames, frame_padding))
        return logits

    def train(self, mode: bool = True) -> "Classifier":
        """Switch dropout on or off; a frozen encoder never has any."""
        super().train(mode)
        self.encoder.train(mode and not self.encoder_is_frozen)
        return self

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
    classifier.eval()
    device = classifier.proj.weight.device
    return torch.cat([classifier(batch.source.to(device)).cpu() for batch in batches])


def build_classifier(pretrained: Path, finetune: FinetuneParams, seed: int) -> Classifier:
    """Return the classifier to finetune: the checkpoint's encoder, or its like at random.

    The depth and width are the checkpoint's, the dropouts are finetuning's. method.md 5.8.
    """
    stored = read_model(pretrained)
    if stored.kind != "pretrained":
        raise BadCheckpoint(f"{pretrained}: expected a pretrained model, found a {stored.kind}")
    frozen_features = finetune.freeze != "none" or finetune.encoder_is_frozen
    params = model_params(stored.params, pretrained).model_copy(
        update={
            "dropout": finetune.dropout,
            "attention_dropout": finetune.attention_dropout,
            "activation_dropout": finetune.activation_dropout,
            "encoder_layerdrop": finetune.encoder_layerdrop,
            "dropout_input": finetune.dropout_input,
            "feature_grad_mult": 0.0 if frozen_features else finetune.feature_grad_mult,
        }
    )
    torch.manual_seed(seed_of("initial weights", seed))
    classifier = Classifier(Encoder(params), len(CLASSES), finetune.final_dropout)
    if finetune.init == "pretrained":
        load_exactly(classifier.encoder, encoder_tensors(stored), pretrained)
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
    return classifier.to(device).eval()
