"""c3: the classifier on all lead sets, padded and short segments; losses, scores, gradients."""

import numpy as np
import torch
from torch import Tensor

from ecg_core.batches.augment import select_leads
from ecg_core.batches.dataset import Batch
from ecg_core.metrics.cinc import cinc_score, cinc_sums, decide, load_weights
from ecg_core.metrics.ranking import (
    areas_micro,
    entry_accuracy,
    exact_match,
    precision_micro,
    recall_micro,
)
from ecg_core.models.classifier import Classifier, finetune_forward
from ecg_core.training.objectives import BITS, ClassifyObjective
from tests.replay.comparison import FORWARD, GRADIENT, LOSS, SCORE, Comparison
from tests.replay.fixtures import CannotReplay, Fixtures, Json, model_changes
from tests.replay.pretraining import compare_gradients

LOGGED = 5.1e-4
"""Half of the third decimal, to which the original logs losses and CinC scores."""
LOGGED_FRACTION = 5.1e-6
"""Half of the fifth, to which it logs accuracies."""


def replay_classifier(stem: str, fixtures: Fixtures, table: Comparison) -> None:
    """Run every variant of the input through the classifier."""
    arrays, told = fixtures.pair(stem)
    labels = arrays["labels"]
    variants = [name for name, value in told.items() if isinstance(value, dict) and name != "leads"]
    for variant in variants:
        model = fixtures.classifier(model_changes(told)).eval()
        source, padding = _variant(variant, fixtures.inputs(), arrays, told)
        batch = classify_batch(source, labels, padding)
        _compare(table, variant, arrays, told[variant], model, batch)


def classify_batch(source: np.ndarray, labels: np.ndarray, padding: np.ndarray | None) -> Batch:
    """Return labelled segments as the loop hands them over."""
    rows = len(source)
    return Batch(
        source=torch.from_numpy(np.ascontiguousarray(source)),
        recording=torch.arange(rows),
        segment=torch.zeros(rows, dtype=torch.int64),
        labels=torch.from_numpy(labels).float(),
        names=tuple(f"row {row}" for row in range(rows)),
        padding=None if padding is None else torch.from_numpy(padding),
    )


def _variant(
    name: str, inputs: dict[str, np.ndarray], arrays: dict[str, np.ndarray], told: Json
) -> tuple[np.ndarray, np.ndarray | None]:
    if name == "pad":
        return inputs["x_pad"], arrays["padding_mask"]
    if name.startswith("short"):
        return inputs["x"][..., : int(name.removeprefix("short"))], None
    if name.startswith("leads"):
        leads = tuple(told["leads"][name.removeprefix("leads")])
        return np.stack([select_leads(row, leads, pad=True) for row in inputs["x"]]), None
    if name == "all12":
        return inputs["x"], None
    raise CannotReplay(f"expected a variant all12, pad, leads or short, found {name!r}")


def _compare(
    table: Comparison,
    variant: str,
    arrays: dict[str, np.ndarray],
    told: Json,
    model: Classifier,
    batch: Batch,
) -> None:
    at = f"{variant}/"
    kept: list[Tensor] = []
    learn = finetune_forward(model, resting_updates=0)

    def forward(batch: Batch, update: int) -> Tensor:
        kept.append(learn(batch, update))
        return kept[-1]

    result = ClassifyObjective(forward, "labels", None)(batch, 0, 0)
    result.total.backward()
    logits = kept[0]
    table.close(at + "logits", logits, arrays[at + "logits"], absolute=FORWARD)
    if at + "encoder_out" in arrays:
        frames, hidden = model.encoder.represent(batch.source, batch.padding)
        if hidden is not None:
            # the original's pooling sets them to zero in place, before it hands the frames out
            frames = frames.masked_fill(hidden.unsqueeze(-1), 0.0)
        table.close(at + "encoder_out", frames, arrays[at + "encoder_out"], absolute=FORWARD)
    total, positives = result.total.item(), float(batch.labels.sum())
    losses = {
        "loss_sum": total,
        "loss_nats_mean": total / result.sample_size,
        "loss_logged_base2": total / result.sample_size * BITS,
    }
    for name, value in losses.items():
        if name in told:
            table.close(at + name, value, told[name], relative=LOSS)
    table.exact(at + "sample_size", result.sample_size, told["sample_size"])
    by_positives = ClassifyObjective(lambda b, u: logits.detach(), "positives", None)(batch, 0, 0)
    table.exact(at + "sample_size by positives", by_positives.sample_size, positives)
    if "loss_sum" in told:
        per_positive = by_positives.total.item() / by_positives.sample_size
        expected = told["loss_sum"] / positives
        table.close(at + "loss by positives", per_positive, expected, relative=LOSS)
    _compare_scores(table, at, told, logits, batch)
    _compare_gradient_norms(table, at, told, model)
    if any(name.startswith(at + "grad/") for name in arrays):
        compare_gradients(table, arrays, model, prefix=at + "grad/")


def _compare_scores(table: Comparison, at: str, told: Json, logits: Tensor, batch: Batch) -> None:
    labels = batch.labels.numpy() > 0.5
    probabilities = torch.sigmoid(logits.detach()).numpy()
    decisions, weights = decide(probabilities, 0.5), load_weights()
    auroc, auprc = areas_micro(labels, probabilities.astype(np.float64))
    sums = cinc_sums(labels, decisions, weights)
    exact = {
        "auroc": auroc,
        "auprc": auprc,
        "o_score": sums.observed,
        "c_score": sums.correct,
        "i_score": sums.inactive,
    }
    for name, value in exact.items():
        if name in told:
            table.close(at + name, value, told[name], absolute=SCORE)
    logged = {
        "cinc_score": (cinc_score(labels, decisions, weights), LOGGED),
        "accuracy": (entry_accuracy(labels, decisions), LOGGED_FRACTION),
        "em_accuracy": (exact_match(labels, decisions), LOGGED_FRACTION),
        "precision": (precision_micro(labels, decisions), LOGGED_FRACTION),
        "recall": (recall_micro(labels, decisions), LOGGED_FRACTION),
    }
    for name, (value, allowed) in logged.items():
        if name in told.get("smoothed", {}):
            expected, group = told["smoothed"][name], f"{at}logged"
            table.close(f"{at}logged {name}", value, expected, absolute=allowed, group=group)


def _compare_gradient_norms(table: Comparison, at: str, told: Json, model: Classifier) -> None:
    """Compare norms parameter by parameter; None stands for the frozen convolutions."""
    own = dict(model.named_parameters())
    group = f"gradient norms {at.rstrip('/')}"
    for name, norm in told.get("grad_norm", {}).items():
        quantity = f"{at}grad_norm {name}"
        gradient = own[name].grad if name in own else None
        if norm is None or gradient is None:
            table.exact(quantity, gradient is None, norm is None, group)
            continue
        if name.endswith("k_proj.bias"):
            scale = told["grad_norm"][name.replace("bias", "weight")]
            allowed = GRADIENT * float(scale)
            table.close(quantity, gradient.norm(), norm, absolute=allowed, group=group)
        else:
            table.close(quantity, gradient.norm(), norm, relative=GRADIENT, group=group)
    if "grad_norm_total" in told:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        total = torch.stack([gradient.norm() for gradient in gradients]).norm()
        table.close(at + "grad_norm_total", total, told["grad_norm_total"], relative=GRADIENT)
