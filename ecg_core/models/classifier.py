"""The encoder with one linear layer: multi-label classification of segments."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ecg_core.models.encoder import Encoder, Source, SourcePadding, model_params, pool
from ecg_core.models.model_file import BadCheckpoint, load_exactly, read_model, save_model


class Classifier(nn.Module):
    """Mean over frames, one linear layer. method.md 5.8."""

    def __init__(self, encoder: Encoder, n_classes: int, final_dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.proj = nn.Linear(encoder.params.encoder_embed_dim, n_classes)
        self.final_dropout = final_dropout
        self.encoder_rests = False
        """True runs the whole encoder without gradients."""
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(
        self, source: Source, padding: SourcePadding | None = None
    ) -> Float[Tensor, "batch class"]:
        """Return a logit for each class."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_rests):
            frames, frame_padding = self.encoder.represent(source, padding)
        frames = F.dropout(frames, self.final_dropout, self.training)
        logits: Tensor = self.proj(pool(frames, frame_padding))
        return logits


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
