"""The four terms of pretraining and the loss of classification: tensors in, nats out.

Weights are applied where the terms are added up (training/objectives.py).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def info_nce(logits: Float[Tensor, "target candidate"]) -> Float[Tensor, ""]:
    """Sum over the targets of -log softmax of candidate 0, the true one (van den Oord 2018)."""
    truth = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    return F.cross_entropy(logits, truth, reduction="sum")


def contrastive_accuracy(logits: Float[Tensor, "target candidate"]) -> Int[Tensor, ""]:
    """Count the targets whose true candidate, number 0, has the largest logit.

    Equal candidates count for the first, unless all are equal. method.md 3.2.
    """
    return ((logits.argmax(-1) == 0) & (logits.argmin(-1) != 0)).sum()


def codebook_diversity(prob_perplexity: Float[Tensor, ""], n_codes: int) -> Float[Tensor, ""]:
    """Return the unused part of the codebook, 0 to 1 (wav2vec 2.0, equation 4)."""
    return (n_codes - prob_perplexity) / n_codes


def feature_penalty(features: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Return the mean square of the convolutions' output."""
    return features.float().pow(2).mean()


def cmsc(
    pooled: Float[Tensor, "batch channel"],
    recording: Int[Tensor, " batch"],
    segment: Int[Tensor, " batch"],
    temperature: float,
    eps: float,
) -> Float[Tensor, ""]:
    """Contrast the first segments of all pairs with the second ones, both ways (Kiyasseh 2021).

    Segments of one recording are each other's positives; `segment` is 0 or 1 within a pair.
    method.md 3.1.
    """
    similarity, positive = cmsc_logits(pooled, recording, segment, temperature, eps)
    rows = -F.log_softmax(similarity, dim=1)[positive].mean()
    columns = -F.log_softmax(similarity.T, dim=1)[positive.T].mean()
    return (rows + columns) / 2


def cmsc_logits(
    pooled: Float[Tensor, "batch channel"],
    recording: Int[Tensor, " batch"],
    segment: Int[Tensor, " batch"],
    temperature: float,
    eps: float,
) -> tuple[Float[Tensor, "first second"], Bool[Tensor, "first second"]]:
    """Return the similarity of each first with each second segment, and which are positives."""
    # the reference divides by the detached norm: the value of F.normalize, another gradient
    norm = pooled.detach().float().norm(dim=1, keepdim=True).clamp_min(eps)
    unit = pooled.float() / norm
    first, second = segment == 0, segment == 1
    similarity = unit[first] @ unit[second].T / temperature
    return similarity, recording[first][:, None] == recording[second][None, :]


def binary_cross_entropy(
    logits: Float[Tensor, "batch class"],
    labels: Float[Tensor, "batch class"],
    pos_weight: Float[Tensor, " class"] | None = None,
) -> Float[Tensor, ""]:
    """Sum over segments and classes of the cross-entropy of independent labels."""
    return F.binary_cross_entropy_with_logits(
        logits.float(), labels, pos_weight=pos_weight, reduction="sum"
    )
