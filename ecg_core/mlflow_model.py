"""The final classifier in MLflow: a pyfunc model with a signature, and its model card."""

from pathlib import Path

import mlflow
import numpy as np
from mlflow.models.signature import ModelSignature
from mlflow.types.schema import Schema, TensorSpec

from ecg_core.classes import ABBREVIATIONS, CLASSES
from ecg_core.report_inputs import Inputs, read_inputs
from ecg_core.report_tables import NOTHING, number, scale_of, with_interval

NEEDS = ("torch", "numpy", "safetensors", "pydantic", "jaxtyping", "ruamel-yaml", "mlflow")
"""Of requirements.txt, what the logged model imports."""


def log_classifier(store: str, run_id: str, checkpoint: Path) -> None:
    """Log a finetuned checkpoint to a run, with the card of the reports beside it."""
    card = model_card(read_inputs(Path()))
    # unnamed: an array goes in and an array comes out
    millivolts = TensorSpec(np.dtype(np.float32), (-1, 12, -1))
    probabilities = TensorSpec(np.dtype(np.float32), (-1, len(CLASSES)))
    mlflow.set_tracking_uri(store)
    with mlflow.start_run(run_id=run_id):
        mlflow.set_tag("mlflow.note.content", card)
        mlflow.log_text(card, "model_card.md")
        mlflow.pyfunc.log_model(
            name="classifier",
            loader_module="ecg_core.models.pyfunc_classifier",
            data_path=str(checkpoint),
            code_paths=[str(Path(__file__).parent)],
            pip_requirements=pinned(Path("requirements.txt"), NEEDS),
            signature=ModelSignature(Schema([millivolts]), Schema([probabilities])),
            metadata={"classes": list(CLASSES), "abbreviations": list(ABBREVIATIONS)},
        )


def pinned(requirements: Path, names: tuple[str, ...]) -> list[str]:
    """Return the lines of requirements.txt that pin these packages."""
    lines = requirements.read_text().split()
    return [line for line in lines if line.split("==")[0] in names]


def model_card(inputs: Inputs) -> str:
    """Return in Markdown what the model is, what it was made from, and what it is worth."""
    found, params = inputs.evaluate, inputs.params
    sources = ", ".join(sorted(inputs.manifest["source"].unique()))
    return f"""# Classifier of 12-lead ECGs ({scale_of(inputs).lower()})

**For research, not for diagnosis.** Not a medical device.

- Input: segments of {params["data.seconds"]:g} s in millivolts at {params["data.fs"]} Hz, leads
  I ... V6 in the standard order, float32 (segment, lead, sample); missing leads are zero.
- Output: the probability of each of the {len(CLASSES)} scored classes of the PhysioNet/CinC
  Challenge 2021; a recording's is the mean over its segments.
- Method: W2V + CMSC + random lead masking (Oh et al., CHIL 2022), finetuned on
  {", ".join(params["split.finetune_sources"])}.
- Data: {len(inputs.manifest)} recordings of {sources}; split by {params["split.unit"]}.
- CinC 2021 on {found["recordings"]} test recordings at threshold 0.5:
  {with_interval(found, "recording", "cinc_fixed")} (95 % interval over patients); nothing predicted
  scores {number(found["recording"][NOTHING])}, sinus rhythm for everyone 0.
- AUROC, macro: {with_interval(found, "recording", "auroc_macro")}.
- Licence: MIT; the recordings are under CC BY 4.0 (see LICENSE for whom to credit).
"""
