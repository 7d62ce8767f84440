"""c2: one pretraining pass, its four losses, and the gradient of every parameter."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ecg_core import losses
from ecg_core.batches.dataset import Batch
from ecg_core.models.wav2vec2_cmsc import Draws, PretrainOutput
from ecg_core.training.objectives import MicroResult, PretrainObjective
from ecg_core.training.optimizer import scale_and_clip
from tests.replay.comparison import CMSC, FORWARD, GRADIENT, LOSS, Comparison
from tests.replay.fixtures import Fixtures, Json, model_changes

TERMS = {
    "loss_total": "loss",
    "loss_infonce_sum": "loss_infonce",
    "loss_diversity_weighted_sum": "loss_diversity",
    "loss_features_pen_weighted_sum": "loss_penalty",
    "loss_cmsc_weighted_sum": "loss_cmsc",
    "prob_perplexity": "prob_perplexity",
    "code_perplexity": "code_perplexity",
    "temp": "temp",
}
"""The fixture's names of numbers, and the objective's."""


def replay_pass(stem: str, fixtures: Fixtures, table: Comparison) -> None:
    """Run one pass on the given mask, negatives and noise, and compare all it computes."""
    arrays, told = fixtures.pair(stem)
    model = fixtures.model(model_changes(told))
    model.train(bool(told.get("train_mode", False)))
    batch = pretraining_batch(fixtures, arrays)
    draws = given_draws(arrays["mask_indices"], arrays["neg_idxs"], arrays.get("gumbel_noise"))
    criterion = fixtures.criterion(told.get("criterion", {}))
    outputs: list[PretrainOutput] = []
    tau = float(told["temp"])

    def forward(batch: Batch, update: int, micro: int) -> PretrainOutput:
        outputs.append(model.pretrain(batch.source, draws, tau, batch.padding))
        return outputs[-1]

    objective = PretrainObjective(forward, lambda update: tau, criterion)
    result = objective(batch, 0, 0)
    result.total.backward()
    output = outputs[0]
    compare_tensors(table, arrays, output)
    similarity, positive = losses.cmsc_logits(
        output.pooled, batch.recording, batch.segment, criterion.temp, criterion.eps
    )
    table.close("cmsc_logits", similarity, arrays["cmsc_logits"], absolute=FORWARD)
    table.exact("cmsc_target", positive, arrays["cmsc_target"])
    compare_numbers(table, told, result, output, draws)
    compare_gradients(table, arrays, model)
    norm = scale_and_clip(model.parameters(), 1.0, 0.0)
    table.close("grad_norm_total", norm, told["grad_norm_total"], relative=GRADIENT)


def pretraining_batch(fixtures: Fixtures, arrays: dict[str, np.ndarray]) -> Batch:
    """Return the fixture's micro-batch; what it does not say is the shared input's."""
    inputs = fixtures.inputs()
    source = torch.from_numpy(arrays["source"] if "source" in arrays else inputs["x"])
    padding = arrays.get("padding_mask")

    def of_rows(name: str) -> Tensor:
        return torch.from_numpy(arrays[name] if name in arrays else inputs[name]).long().view(-1)

    return Batch(
        source=source,
        recording=of_rows("patient_id"),
        segment=of_rows("segment"),
        labels=None,
        names=tuple(f"row {row}" for row in range(len(source))),
        padding=None if padding is None else torch.from_numpy(padding),
    )


def given_draws(mask: np.ndarray, flat: np.ndarray, noise: np.ndarray | None) -> Draws:
    """Return draws; the fixtures count negatives through all rows, this project within a row."""
    rows, masked = len(mask), int(mask[0].sum())
    negatives = torch.from_numpy(flat).long().view(rows, masked, -1)
    first = torch.arange(rows)[:, None, None] * masked
    return Draws(
        span_mask=torch.from_numpy(mask),
        negatives=negatives - first,
        noise=None if noise is None else torch.from_numpy(noise),
    )


def compare_tensors(
    table: Comparison, arrays: dict[str, np.ndarray], output: PretrainOutput
) -> None:
    """Compare logits, codes, frames and pooled vectors."""
    named: dict[str, Callable[[], Tensor]] = {
        "w2v_logits_NBT": lambda: output.logits.permute(2, 0, 1),
        # the original's flat rows go through the batch first
        "logits_flat": lambda: output.logits.transpose(0, 1).flatten(0, 1),
        "encoder_out_BTC": lambda: output.frames,
        "features_aggregated": lambda: output.pooled,
        "quantized_BTC": lambda: output.codes,
        "quantized_projected_BTC": lambda: output.targets,
    }
    for name, value in named.items():
        if name in arrays:
            table.close(name, value(), arrays[name], absolute=FORWARD)
    if "w2v_logits_NBT" in arrays:
        infinite = torch.isinf(output.logits.permute(2, 0, 1))
        table.exact("places of -inf", infinite, np.isinf(arrays["w2v_logits_NBT"]))


def compare_numbers(
    table: Comparison, told: Json, result: MicroResult, output: PretrainOutput, draws: Draws
) -> None:
    """Compare losses, perplexities and counts."""
    for theirs, ours in TERMS.items():
        if theirs in told:
            allowed = CMSC if "cmsc" in theirs else LOSS
            table.close(theirs, result.sums[ours], told[theirs], relative=allowed)
    targets = float(result.sums["targets"])
    measured = {
        "features_pen": output.features_penalty,
        "diversity_loss": losses.codebook_diversity(output.prob_perplexity, output.n_codes),
        "cmsc_loss_mean": float(result.sums["loss_cmsc"]) / targets,
        "accuracy": float(result.sums["correct"]) / targets,
    }
    for name, value in measured.items():
        if name in told:
            table.close(name, value, told[name], relative=CMSC if "cmsc" in name else LOSS)
    counted = {
        "sample_size": result.sample_size,
        "count": targets,
        "correct": result.sums["correct"],
        "num_vars": output.n_codes,
        "n_neg_is_pos_inf": torch.isinf(output.logits).sum(),
        "masked_per_row": draws.span_mask[0].sum(),
    }
    for name, value in counted.items():
        if name in told:
            table.exact(name, value, told[name])


def compare_gradients(
    table: Comparison,
    arrays: dict[str, np.ndarray],
    model: nn.Module,
    prefix: str = "grad/",
) -> None:
    """Compare the gradient of every parameter with the parameter's own largest.

    The true gradient of a key projection's bias is 0, because softmax does not see what all keys
    share; both sides hold rounding. So it is held against the largest of its weight's gradient.
    """
    expected = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
    group = f"gradients {prefix.removesuffix('grad/')}".strip()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is None and (name not in expected or not expected[name].any()):
            # a parameter that rests has no gradient; a fixture may say so with zeros
            continue
        if name not in expected or gradient is None:
            wanted = "none" if name not in expected else "a gradient"
            table.fail(prefix + name, f"expected {wanted}, found the other", group)
        elif name.endswith("k_proj.bias"):
            scale = np.abs(expected[name.replace("bias", "weight")]).max()
            allowed = GRADIENT * float(scale)
            table.close(prefix + name, gradient, expected[name], absolute=allowed, group=group)
        else:
            table.close(prefix + name, gradient, expected[name], relative=GRADIENT, group=group)
    for name in expected.keys() - dict(model.named_parameters()).keys():
        table.fail(prefix + name, "expected a parameter of this name, found none", group)
