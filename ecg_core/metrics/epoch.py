"""The columns of finetuning's history that say how good the model is after an epoch."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ecg_core.losses import binary_cross_entropy
from ecg_core.metrics.cinc import cinc_score, decide, load_weights, mean_by_recording
from ecg_core.metrics.ranking import areas_micro, areas_per_class, mean_of_defined

THRESHOLD = 0.5


def epoch_scores(
    part: str,
    labels: Bool[np.ndarray, "segment label"],
    logits: Float[Tensor, "segment label"],
    recording: Int[np.ndarray, " segment"],
) -> dict[str, float]:
    """Score one part (valid, test): losses in bits, the rest at the fixed 0.5 threshold.

    `recording` counts from 0 without gaps. CinC per segment is the public code's number, CinC and
    AUROC per recording (mean probability over its segments) the official ones' unit.
    """
    weights = load_weights()
    bits = float(binary_cross_entropy(logits, torch.from_numpy(labels).float())) / math.log(2)
    probabilities = torch.sigmoid(logits.double()).numpy()
    mean = mean_by_recording(probabilities, recording)
    truth = mean_by_recording(labels.astype(np.float64), recording) > THRESHOLD
    return {
        f"{part}_loss": bits / labels.size,
        f"{part}_loss_per_positive": bits / max(1, int(labels.sum())),
        f"{part}_cinc_segment": cinc_score(labels, decide(probabilities, THRESHOLD), weights),
        f"{part}_cinc_recording": cinc_score(truth, decide(mean, THRESHOLD), weights),
        f"{part}_auroc_micro": float(areas_micro(labels, probabilities)[0]),
        f"{part}_auroc_macro": float(mean_of_defined(areas_per_class(truth, mean)[0])),
    }
