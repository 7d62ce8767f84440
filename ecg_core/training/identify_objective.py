"""ArcFace's loss as the loop wants it: cross-entropy over the patients of train."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from ecg_core.training.objectives import BITS, MicroResult, TrainingBatch


class ArcFaceObjective:
    """Cross-entropy of a segment's own patient, pushed away by the margin."""

    def __init__(
        self,
        forward: Callable[[TrainingBatch, int], Tensor],
        logits: Callable[[Tensor, Tensor], Tensor],
        recording: Int[np.ndarray, " segment"],
        patient: Int[np.ndarray, " segment"],
    ) -> None:
        """`forward` gives cosines, `logits` puts the margin in.

        `recording` has the numbers that batches know, for each segment that is trained on.
        """
        self.forward = forward
        self.logits = logits
        patient_of = np.full(int(recording.max()) + 1, -1, dtype=np.int64)
        patient_of[recording] = patient
        self.patient_of = torch.from_numpy(patient_of)

    def __call__(self, batch: TrainingBatch, update: int, micro: int) -> MicroResult:
        """Return the summed loss; accuracy is of the plain cosines. method.md 3.8."""
        cosines = self.forward(batch, update)
        patients = self.patient_of.to(cosines.device)[batch.recording]
        total = F.cross_entropy(self.logits(cosines, patients), patients, reduction="sum")
        correct = (cosines.detach().argmax(1) == patients).sum()
        segments = float(len(patients))
        sums: dict[str, Tensor | float] = {
            "loss": total.detach(),
            "correct": correct,
            "segments": segments,
        }
        return MicroResult(total, segments, sums)

    def summarise(self, sums: dict[str, float]) -> dict[str, float]:
        """Return the loss in bits a segment, and how often the nearest direction is the right."""
        return {
            "train_loss": sums["loss"] / sums["segments"] * BITS,
            "train_accuracy": sums["correct"] / sums["segments"],
        }
