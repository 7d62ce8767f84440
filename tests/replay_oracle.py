"""Short trainings by the formulas of method.md, written down as fixtures of the original's form.

The models' own forward passes and autograd are used (other fixtures hold those against the
original); everything around them, from accumulation to Adam, is written out once more.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ecg_core import losses
from tests.replay.fixtures import OWN, Fixtures
from tests.replay.pretraining import given_draws

FIXTURES = Fixtures(OWN)
BETA1, BETA2 = 0.9, 0.98


def adam_step(
    parameters: dict[str, nn.Parameter], state: dict[str, Any], lr: float, eps: float, decay: float
) -> None:
    """method.md 5.4: a parameter without a gradient rests, and counts only its own steps."""
    for name, parameter in parameters.items():
        if parameter.grad is None:
            continue
        t, m, v = state.get(name, (0, 0.0, 0.0))
        t, gradient = t + 1, parameter.grad.double()
        m, v = BETA1 * m + (1 - BETA1) * gradient, BETA2 * v + (1 - BETA2) * gradient**2
        state[name] = t, m, v
        p = parameter.detach().double() * (1 - lr * decay)
        p = p - lr * math.sqrt(1 - BETA2**t) / (1 - BETA1**t) * m / (v.sqrt() + eps)
        parameter.data = p.float()


def train_by_formula(
    model: nn.Module,
    loss_of: Callable[[int], tuple[Tensor, float]],
    updates: list[list[int]],
    lr: Callable[[int], float],
    clip: float,
    eps: float,
    decay: float,
    before_update: Callable[[int], None],
) -> list[dict[str, float]]:
    """Return a row an update; the model is trained in place."""
    parameters, state, rows = dict(model.named_parameters()), {}, []
    for number, micro_batches in enumerate(updates):
        before_update(number)
        model.zero_grad(set_to_none=True)
        total = size = 0.0
        for micro in micro_batches:
            loss, targets = loss_of(micro)
            loss.backward()
            total, size = total + loss.item(), size + targets
        gradients = [p.grad for p in parameters.values() if p.grad is not None]
        for gradient in gradients:
            gradient.div_(size)
        norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))
        if clip:
            for gradient in gradients:
                gradient.mul_(min(1.0, clip / (norm + 1e-6)))
        adam_step(parameters, state, lr(number), eps, decay)
        rows.append({"lr": lr(number), "gnorm": norm, "sample_size": size, "mean": total / size})
    return rows


def write_pretraining(stem: Path) -> None:
    """Four updates of two: warm-up over four, clipping at 1, temperature 2 * 0.9^n."""
    source = FIXTURES.arrays("c4_pretrain_P3_gumbel_default_lr.npz")
    inputs, model = FIXTURES.inputs(), FIXTURES.model({})
    n_updates = 2
    names = ("lead_kept", "mask_indices", "neg_idxs", "gumbel_noise")
    arrays = {f"{name}/{i}": source[f"{name}/{i}"] for name in names for i in range(2 * n_updates)}
    recording = torch.from_numpy(inputs["patient_id"])
    segment = torch.from_numpy(inputs["segment"])

    def loss_of(micro: int) -> tuple[Tensor, float]:
        of = [arrays[f"{name}/{micro}"] for name in names]
        x = torch.from_numpy(inputs["x"] * of[0][:, :, None])
        tau = max(2.0 * 0.9 ** (micro // 2), 0.5)
        output = model.pretrain(x, given_draws(*of[1:]), tau)
        flat = output.logits.flatten(0, 1)
        n = len(flat)
        diversity = (output.n_codes - output.prob_perplexity) / output.n_codes
        contrast = losses.cmsc(output.pooled, recording, segment, 0.1, 1e-8)
        nats = -torch.log_softmax(flat, dim=1)[:, 0].sum()
        return nats + n * (0.1 * diversity + 10 * output.features_penalty + contrast), float(n)

    def lr(update: int) -> float:
        return 1e-3 * (update + 1) / 4

    groups = [[2 * u, 2 * u + 1] for u in range(n_updates)]
    rows = train_by_formula(model, loss_of, groups, lr, 1.0, 1e-6, 0.01, lambda update: None)
    for row in rows:
        row["loss_per_target_nats"] = row.pop("mean")
    settings = {
        "update_freq": 2,
        "clip_norm": 1.0,
        "latent_temp": [2.0, 0.5, 0.9],
        "train_gumbel": True,
        "optimizer": _optimizer(1e-6, 0.01),
        "lr_scheduler": {"_name": "fixed", "warmup_updates": 4, "lr": [1e-3]},
    }
    _write(stem, arrays, model, rows, settings)


def write_finetuning(stem: Path) -> None:
    """Ten updates: tri-stage, the encoder rests for two, gradients of the convolutions x 0.1."""
    source = FIXTURES.arrays("c4_finetune_F1_config.npz")
    x = FIXTURES.inputs()["x"]
    labels = FIXTURES.arrays("c3_classifier.npz")["labels"]
    arrays = {f"idx/{u}": source[f"idx/{u}"] for u in range(10)}
    model = FIXTURES.classifier({"feature_grad_mult": 0.1})

    def loss_of(update: int) -> tuple[Tensor, float]:
        rows = arrays[f"idx/{update}"]
        logits, truth = model(torch.from_numpy(x[rows])), torch.from_numpy(labels[rows])
        nats = torch.nn.functional.softplus(logits) - logits * truth
        return nats.sum(), float(truth.numel())

    def rest(update: int) -> None:
        model.encoder.requires_grad_(update >= 2)

    def lr(update: int) -> float:
        # 2 updates from 0.01 up, 2 held, 5 down to 0.05
        if update < 2:
            return 1e-3 * (0.01 + 0.99 * update / 2)
        return 1e-3 * 0.05 ** (max(0, update - 4) / 5)

    groups = [[update] for update in range(10)]
    rows = train_by_formula(model, loss_of, groups, lr, 0.0, 1e-8, 0.0, rest)
    for row in rows:
        row["loss_mean_nats"] = row.pop("mean")
    settings = {
        "model": {"feature_grad_mult": 0.1, "freeze_finetune_updates": 2},
        "max_update": 10,
        "optimizer": _optimizer(1e-8, 0.0),
        "lr_scheduler": {
            "_name": "tri_stage",
            "phase_ratio": "(0.25, 0.25, 0.5)",
            "init_lr_scale": 0.01,
            "final_lr_scale": 0.05,
            "lr": [1e-3],
        },
    }
    _write(stem, arrays, model, rows, settings)


def _optimizer(eps: float, decay: float) -> dict[str, Any]:
    return {
        "_name": "adam",
        "adam_betas": f"({BETA1}, {BETA2})",
        "adam_eps": eps,
        "weight_decay": decay,
    }


def _write(
    stem: Path,
    arrays: dict[str, np.ndarray],
    model: nn.Module,
    rows: list[dict[str, float]],
    settings: dict[str, Any],
) -> None:
    final = {f"params_final/{name}": p.numpy() for name, p in model.state_dict().items()}
    np.savez(stem.with_suffix(".npz"), **arrays, **final)
    stem.with_suffix(".json").write_text(json.dumps({"updates": rows, **settings}))
