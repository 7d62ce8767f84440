"""What is minimised: the terms of a task's loss, weighted, added up, and put into a row of history.

An objective returns sums over a micro-batch, so that sums over micro-batches and processes mean
something: a mean is formed once, at the end of an epoch. method.md 3.1, 3.2, 3.5.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ecg_core import losses
from ecg_core.params import Section
from ecg_core.training.cmsc import Contrasted, bring_nothing, cmsc_of_targets
from ecg_core.training.distributed import n_processes

log = logging.getLogger(__name__)

BITS = 1 / math.log(2)


@runtime_checkable
class TrainingBatch(Protocol):
    """What a loop and an objective need to know of a micro-batch."""

    @property
    def source(self) -> Tensor: ...
    @property
    def recording(self) -> Tensor: ...
    @property
    def segment(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor | None: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def padding(self) -> Tensor | None: ...
    def to(self, device: torch.device) -> "TrainingBatch": ...


class MicroResult(NamedTuple):
    """One micro-batch's contribution to an update."""

    total: Tensor
    """The summed loss in nats, the one thing that is differentiated."""
    sample_size: float
    """What the summed gradient is divided by, added up over the update."""
    sums: dict[str, Tensor | float]
    """What history is made of."""


@runtime_checkable
class Objective(Protocol):
    """A task's loss."""

    def __call__(self, batch: TrainingBatch, update: int, micro: int) -> MicroResult:
        """Return the loss of micro-batch number `micro` of update number `update`."""
        ...

    def summarise(self, sums: dict[str, float]) -> dict[str, float]:
        """Turn an epoch's sums into the columns of its row of history."""
        ...


@runtime_checkable
class Gathering(Protocol):
    """An objective whose processes may exchange something within a micro-batch."""

    def rest(self) -> None:
        """Take part in that exchange, in a turn for which this process has no micro-batch."""
        ...


class CriterionParams(Section):
    """Section `criterion`, the public configuration's names."""

    name: Literal["wav2vec2_with_cmsc"] = Field(alias="_name")
    infonce: Literal[True]
    infonce_weight: float = Field(ge=0)
    cmsc_weights: float | None = Field(ge=0)
    log_keys: tuple[Literal["prob_perplexity", "code_perplexity", "temp"], ...]
    loss_weights: tuple[float, float]
    temp: float = Field(gt=0)
    eps: float = Field(gt=0)
    gather: bool

    @model_validator(mode="after")
    def _every_key_is_logged(self) -> "CriterionParams":
        if set(self.log_keys) != {"prob_perplexity", "code_perplexity", "temp"}:
            raise ValueError(
                "log_keys to be [prob_perplexity, code_perplexity, temp], which are always logged, "
                f"found {list(self.log_keys)}"
            )
        return self


@runtime_checkable
class PretrainForward(Protocol):
    """What the pretraining model returns, as far as the loss is concerned."""

    @property
    def logits(self) -> Tensor: ...
    @property
    def features_penalty(self) -> Tensor: ...
    @property
    def pooled(self) -> Tensor: ...
    @property
    def prob_perplexity(self) -> Tensor: ...
    @property
    def code_perplexity(self) -> Tensor: ...
    @property
    def n_codes(self) -> int: ...


class PretrainTerms(NamedTuple):
    """The four weighted terms, each summed over the targets, in nats."""

    infonce: Tensor
    diversity: Tensor
    penalty: Tensor
    cmsc: Tensor


def pretrain_terms(
    output: PretrainForward, batch: TrainingBatch, criterion: CriterionParams
) -> PretrainTerms:
    """Weight the four terms; all but InfoNCE are means, so they count once a target."""
    logits = output.logits.flatten(0, 1)
    targets = len(logits)
    diversity_weight, penalty_weight = criterion.loss_weights
    cmsc_weight = 1.0 if criterion.cmsc_weights is None else criterion.cmsc_weights
    diversity = losses.codebook_diversity(output.prob_perplexity, output.n_codes)
    own = Contrasted(output.pooled, batch.recording, batch.segment, targets)
    contrast = cmsc_of_targets(own, criterion.temp, criterion.eps, criterion.gather)
    return PretrainTerms(
        infonce=criterion.infonce_weight * losses.info_nce(logits),
        diversity=diversity_weight * diversity * targets,
        penalty=penalty_weight * output.features_penalty * targets,
        cmsc=cmsc_weight * contrast,
    )


class PretrainObjective:
    """W2V + CMSC."""

    def __init__(
        self,
        forward: Callable[[TrainingBatch, int, int], PretrainForward],
        temperature: Callable[[int], float],
        criterion: CriterionParams,
    ) -> None:
        self.forward = forward
        self.temperature = temperature
        self.criterion = criterion
        if criterion.gather and n_processes() == 1:
            log.info("criterion.gather: there is one process; CMSC stays within a micro-batch")

    def __call__(self, batch: TrainingBatch, update: int, micro: int) -> MicroResult:
        """Return the sum of the four terms over the micro-batch's targets."""
        output = self.forward(batch, update, micro)
        terms = pretrain_terms(output, batch, self.criterion)
        logits = output.logits.detach().flatten(0, 1)
        total = terms.infonce + terms.diversity + terms.penalty + terms.cmsc
        sums: dict[str, Tensor | float] = {
            "loss": total.detach(),
            **{f"loss_{name}": term.detach() for name, term in terms._asdict().items()},
            "correct": losses.contrastive_accuracy(logits),
            "targets": float(len(logits)),
            "segments": float(len(batch.source)),
            "micro_batches": 1.0,
            "prob_perplexity": output.prob_perplexity.detach(),
            "code_perplexity": output.code_perplexity.detach(),
            "temp": self.temperature(update),
        }
        return MicroResult(total, float(len(logits)), sums)

    def rest(self) -> None:
        """Bring no vectors to the others' CMSC."""
        if self.criterion.gather:
            bring_nothing()

    def summarise(self, sums: dict[str, float]) -> dict[str, float]:
        """Return losses in bits a target, accuracy, and means over the micro-batches."""
        names = ("loss", "loss_infonce", "loss_diversity", "loss_penalty", "loss_cmsc")
        row = {name: sums[name] / sums["targets"] * BITS for name in names}
        row["accuracy"] = sums["correct"] / sums["targets"]
        for name in ("prob_perplexity", "code_perplexity", "temp"):
            row[name] = sums[name] / sums["micro_batches"]
        row["masked_frames"] = sums["targets"] / sums["segments"]
        row["segments"] = sums["segments"]
        return row


class ClassifyObjective:
    """Binary cross-entropy of independent labels."""

    def __init__(
        self,
        forward: Callable[[TrainingBatch, int], Tensor],
        normalize_by: Literal["labels", "positives"],
        pos_weight: Sequence[float] | None,
    ) -> None:
        self.forward = forward
        self.normalize_by = normalize_by
        self.pos_weight = None if pos_weight is None else torch.tensor(pos_weight)

    def __call__(self, batch: TrainingBatch, update: int, micro: int) -> MicroResult:
        """Return the summed loss; its divisor counts label entries, or positive ones (Q6)."""
        logits = self.forward(batch, update)
        if batch.labels is None:
            raise ValueError("expected a batch with labels, found one without")
        weight = None if self.pos_weight is None else self.pos_weight.to(logits.device)
        total = losses.binary_cross_entropy(logits, batch.labels, weight)
        entries, positives = float(batch.labels.numel()), float(batch.labels.sum())
        sums: dict[str, Tensor | float] = {
            "loss": total.detach(),
            "entries": entries,
            "positives": positives,
        }
        return MicroResult(total, entries if self.normalize_by == "labels" else positives, sums)

    def summarise(self, sums: dict[str, float]) -> dict[str, float]:
        """Return the loss in bits, a label entry and a positive label."""
        return {
            "train_loss": sums["loss"] / sums["entries"] * BITS,
            "train_loss_per_positive": sums["loss"] / max(sums["positives"], 1.0) * BITS,
        }
