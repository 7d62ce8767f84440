"""A classifier's answer about one recording: data, a table, and words to stand beside a drawing."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ecg_core.classes import ABBREVIATIONS, CLASSES
from ecg_core.leads import LEADS

NOTICE = "For research, not for diagnosis."
"""Stands with every answer."""

Answer = dict[str, Any]

_IN_WORDS = 12


def mean_probabilities(
    model: Callable[[Tensor], Tensor],
    segments: Float[np.ndarray, "segment lead sample"],
    leads: Sequence[int],
    batch_size: int,
) -> Float[np.ndarray, " label"]:
    """Return a recording's probabilities, the mean over its segments; other leads are zero."""
    source = torch.zeros(segments.shape)
    source[:, list(leads)] = torch.from_numpy(segments[:, list(leads)])
    with torch.inference_mode():
        logits = torch.cat([model(part) for part in source.split(batch_size)])
    return np.asarray(logits.double().sigmoid().mean(dim=0).numpy())


def answer_of(
    record: str,
    leads: Sequence[int],
    segments: int,
    probabilities: Float[np.ndarray, " label"],
    threshold: float,
) -> Answer:
    """Return what is said of a recording, the likeliest class first, ready for JSON."""
    falling = np.argsort(-probabilities, kind="stable")
    return {
        "record": record,
        "leads": [LEADS[lead] for lead in leads],
        "segments": segments,
        "threshold": threshold,
        "classes": [
            {
                "abbreviation": ABBREVIATIONS[k],
                "class": CLASSES[k],
                "probability": round(float(probabilities[k]), 4),
                "predicted": bool(probabilities[k] > threshold),
            }
            for k in falling
        ],
        "notice": NOTICE,
    }


def as_table(answer: Answer) -> str:
    """Return an answer as lines of text, a class a line."""
    leads = " ".join(answer["leads"])
    lines = [f"{answer['record']}: leads {leads}; {answer['segments']} segments"]
    lines += [f"{'':2}{'class':<8}{'probability':>11}  SNOMED CT"]
    lines += [_line(row) + f"  {row['class']}" for row in answer["classes"]]
    lines += [f"* above {answer['threshold']:g}. {answer['notice']}"]
    return "\n".join(lines)


def in_words(answer: Answer) -> str:
    """Return the likeliest classes, a line each."""
    return "\n".join(_line(row) for row in answer["classes"][:_IN_WORDS])


def _line(row: dict[str, Any]) -> str:
    mark = "*" if row["predicted"] else " "
    return f"{mark} {row['abbreviation']:<8}{row['probability']:>11.3f}"
