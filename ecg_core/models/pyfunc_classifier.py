"""The finetuned classifier as an `mlflow.pyfunc` model: millivolts in, probabilities out.

MLflow loads it through `_load_pyfunc`, from a copy of this package and the checkpoint; no pickle.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ecg_core.models.classifier import Classifier, load_classifier


class ProbabilityModel:
    """What pyfunc calls."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def predict(
        self, signal_mv: Float[np.ndarray, "segment lead sample"], params: Any = None
    ) -> Float[np.ndarray, "segment class"]:
        """Return each class's probability for segments in mV at 500 Hz, leads I ... V6."""
        with torch.no_grad():
            logits = self._classifier(torch.from_numpy(np.asarray(signal_mv, dtype=np.float32)))
        return np.asarray(torch.sigmoid(logits).numpy())


def _load_pyfunc(data_path: str) -> ProbabilityModel:
    """Return the model that was logged; the name is MLflow's."""
    return ProbabilityModel(load_classifier(Path(data_path), "cpu"))
