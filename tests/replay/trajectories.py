"""c4: updates of the real training loop, one after another."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ecg_core.batches.dataset import Batch
from ecg_core.device import CommonParams
from ecg_core.finetune_params import FinetuneParams
from ecg_core.models.classifier import finetune_forward
from ecg_core.models.wav2vec2_cmsc import PretrainOutput
from ecg_core.params import parse_section, read_yaml
from ecg_core.training.checkpoint import StateFolder
from ecg_core.training.loop import Progress, Row, Training, train
from ecg_core.training.objectives import (
    ClassifyObjective,
    MicroResult,
    Objective,
    PretrainObjective,
)
from ecg_core.training.optimizer import Adam
from ecg_core.training.schedule import LearningRate, ScheduleParams, learning_rate, of_finetuning
from tests.replay.classifier import LOGGED, classify_batch
from tests.replay.comparison import LOSS, TRAJECTORY, Comparison
from tests.replay.fixtures import (
    OWN,
    CannotReplay,
    Fixtures,
    Json,
    latent_temp,
    literal,
    model_changes,
)
from tests.replay.pretraining import given_draws

PARAMS_FILE = OWN.parents[1] / "params.yaml"
MICRO = {
    "loss": "loss",
    "loss_0": "loss_infonce",
    "loss_1": "loss_diversity",
    "loss_2": "loss_penalty",
    "loss_3": "loss_cmsc",
    "prob_perplexity": "prob_perplexity",
    "code_perplexity": "code_perplexity",
    "temp": "temp",
}
"""The original's names of what it logs of a micro-batch, and the objective's."""
LOGGED_ROW = {**MICRO, "nsignals": "segments"}
LOGGED_ACCURACY = 5.1e-6


def replay_pretraining(stem: str, fixtures: Fixtures, table: Comparison) -> None:
    """Pretrain on the given draws and compare every update."""
    arrays, told = fixtures.pair(stem)
    inputs, in_turn = fixtures.inputs(), int(told.get("update_freq", 1))
    start = fixtures.model({})
    temps = latent_temp(told.get("latent_temp"), start.params.latent_temp)
    model = fixtures.model({**model_changes(told), "latent_temp": temps})
    n_micro = sum(1 for name in arrays if name.startswith("mask_indices/"))
    noisy = bool(told.get("train_gumbel", True))
    draws = [
        given_draws(
            arrays[f"mask_indices/{i}"],
            arrays[f"neg_idxs/{i}"],
            arrays[f"gumbel_noise/{i}"] if noisy else None,
        )
        for i in range(n_micro)
    ]
    batches = [_masked_batch(inputs, arrays, i) for i in range(n_micro)]

    def forward(batch: Batch, update: int, micro: int) -> PretrainOutput:
        tau = model.params.temperature(update)
        return model.pretrain(batch.source, draws[update * in_turn + micro], tau, batch.padding)

    criterion = fixtures.criterion(told.get("criterion", {}))
    objective = PretrainObjective(forward, model.params.temperature, criterion)
    numbers = list(range(n_micro))
    updates = [numbers[i : i + in_turn] for i in range(0, n_micro, in_turn)]
    schedule = _schedule(fixtures, told)
    rate = learning_rate(schedule, _lr(told), _max_update(told))
    _replay(table, arrays, told, model, objective, _adam(model, told), rate, batches, updates)


def replay_finetuning(stem: str, fixtures: Fixtures, table: Comparison) -> None:
    """Finetune on the given rows and compare every update."""
    arrays, told = fixtures.pair(stem)
    inputs = fixtures.inputs()
    labels = (
        arrays["labels"] if "labels" in arrays else fixtures.arrays("c3_classifier.npz")["labels"]
    )
    model = fixtures.classifier(model_changes(told))
    resting = int({**told, **told.get("model", {})}.get("freeze_finetune_updates", 0))
    weight = told.get("criterion", {}).get("pos_weight")
    objective = ClassifyObjective(finetune_forward(model, resting), "labels", weight)
    n_micro = sum(1 for name in arrays if name.startswith("idx/"))
    rows = [arrays[f"idx/{i}"] for i in range(n_micro)]
    batches = [classify_batch(inputs["x"][some], labels[some], None) for some in rows]
    in_turn, numbers = int(told.get("update_freq", 1)), list(range(n_micro))
    updates = [numbers[i : i + in_turn] for i in range(0, n_micro, in_turn)]
    rate = of_finetuning(_finetune_params(told))
    _replay(table, arrays, told, model, objective, _adam(model, told), rate, batches, updates)


def _masked_batch(inputs: dict[str, np.ndarray], arrays: dict[str, np.ndarray], i: int) -> Batch:
    source = arrays.get(f"source/{i}", inputs["x"])
    if f"lead_kept/{i}" in arrays:
        source = source * arrays[f"lead_kept/{i}"][:, :, None]
    padding = arrays.get(f"padding_mask/{i}")
    ids = {name: arrays.get(f"{name}/{i}", inputs[name]) for name in ("patient_id", "segment")}
    return Batch(
        source=torch.from_numpy(source.astype(np.float32)),
        recording=torch.from_numpy(ids["patient_id"]).long(),
        segment=torch.from_numpy(ids["segment"]).long(),
        labels=None,
        names=tuple(f"row {row}" for row in range(len(source))),
        padding=None if padding is None else torch.from_numpy(padding),
    )


def _lr(told: Json) -> tuple[float, ...]:
    lr = literal(told["lr_scheduler"].get("lr", told["optimizer"].get("lr")))
    return tuple(float(value) for value in (lr if isinstance(lr, list | tuple) else [lr]))


def _max_update(told: Json) -> int:
    """Return of how many updates tri_stage's phases are parts; the fixture's own, by default."""
    given = told.get("max_update") or told["lr_scheduler"].get("max_update")
    return int(given or len(told["updates"]))


def _schedule(fixtures: Fixtures, told: Json) -> ScheduleParams:
    """Return the fixture's schedule; what it does not say (of the other kind) is params.yaml's."""
    given = {key: literal(value) for key, value in told["lr_scheduler"].items()}
    return parse_section(
        "lr_scheduler",
        {**read_yaml(PARAMS_FILE)["lr_scheduler"], **_known(given, ScheduleParams)},
        ScheduleParams,
        PARAMS_FILE,
    )


def _finetune_params(told: Json) -> FinetuneParams:
    given = {key: literal(value) for key, value in told["lr_scheduler"].items()}
    given |= {"lr_scheduler": given.get("_name"), "lr": list(_lr(told))}
    if given.get("force_anneal") is not None:
        raise CannotReplay("expected a finetuning schedule without force_anneal, found one")
    values = {**read_yaml(PARAMS_FILE)["finetune"], **_known(given, FinetuneParams)}
    values["max_update"] = _max_update(told)
    return parse_section("finetune", values, FinetuneParams, PARAMS_FILE)


def _known(given: Json, section: type[Any]) -> Json:
    names = {field.alias or name for name, field in section.model_fields.items()}
    return {key: value for key, value in given.items() if key in names}


def _adam(model: nn.Module, told: Json) -> Adam:
    optimizer = told["optimizer"]
    if optimizer.get("_name", "adam") != "adam":
        raise CannotReplay(f"expected the optimizer adam, found {optimizer['_name']}")
    first, second = literal(optimizer["adam_betas"])
    eps, decay = float(optimizer["adam_eps"]), float(optimizer["weight_decay"])
    return Adam(model.parameters(), (float(first), float(second)), eps, decay)


class _Recorder:
    """An objective that keeps what each micro-batch gave."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.results: list[MicroResult] = []

    def __call__(self, batch: Batch, update: int, micro: int) -> MicroResult:
        self.results.append(self.objective(batch, update, micro))
        return self.results[-1]

    def summarise(self, sums: dict[str, float]) -> dict[str, float]:
        return self.objective.summarise(sums)


@dataclass
class _OneUpdateAnEpoch:
    """Feeds the loop so that every row of its history is one update."""

    batches: list[Batch]
    of_update: list[list[int]]

    def updates(self, epoch: int) -> list[Sequence[int]]:
        return [self.of_update[epoch - 1]]

    def load(self, batches: Iterable[int], epoch: int) -> Iterator[Batch]:
        return (self.batches[number] for number in batches)


@dataclass(frozen=True)
class _Limits:
    max_epoch: int
    max_update: int
    clip_norm: float


class _NoStates(StateFolder):
    """Nothing is saved, nothing is resumed."""

    def __init__(self) -> None:
        pass

    def save(self, state: object) -> bool:
        return True

    def load(self, max_epoch: int) -> None:
        pass


def _replay(
    table: Comparison,
    arrays: dict[str, np.ndarray],
    told: Json,
    model: nn.Module,
    objective: Objective,
    optimizer: Adam,
    rate: LearningRate,
    batches: list[Batch],
    updates: list[list[int]],
) -> None:
    """Run the loop over all updates and compare what it leaves behind."""
    if len(updates) != len(told["updates"]):
        raise CannotReplay(f"expected {len(told['updates'])} updates, found {len(updates)}")
    recorder = _Recorder(objective)
    norms: list[float] = []

    def end_of_epoch(epoch: int, row: Row, progress: Progress) -> Row:
        norms.append(_norm(model))
        if f"params_after_{epoch}/" in {name.split("/")[0] + "/" for name in arrays}:
            _compare_parameters(table, arrays, model, f"params_after_{epoch}/")
        return row

    rows = train(
        Training(
            model=model,
            objective=recorder,
            optimizer=optimizer,
            # the loop's epochs are updates here; the fixture's updates are all of its first epoch
            learning_rate=lambda update, epoch: rate(update, 1),
            feed=_OneUpdateAnEpoch(batches, updates),
            device=torch.device("cpu"),
            common=_common(),
            limits=_Limits(len(updates), 0, float(told.get("clip_norm") or 0.0)),
            states=_NoStates(),
            save_interval_minutes=60.0,
            end_of_epoch=end_of_epoch,
            log_metrics=lambda row, epoch: None,
        )
    )
    results = iter(recorder.results)
    for number, (row, expected) in enumerate(zip(rows, told["updates"], strict=True)):
        micro = [next(results) for _ in updates[number]]
        _compare_update(table, number, row, micro, expected)
        if "param_l2" in expected:
            name = f"update {number} param_l2"
            table.close(name, norms[number], expected["param_l2"], relative=LOSS, group="param_l2")
    _compare_parameters(table, arrays, model, "params_final/")


def _common() -> CommonParams:
    values = {**read_yaml(PARAMS_FILE)["common"], "no_progress_bar": True}
    return parse_section("common", values, CommonParams, PARAMS_FILE)


def _norm(model: nn.Module) -> float:
    return float(torch.stack([p.detach().norm() for p in model.parameters()]).norm())


def _compare_update(
    table: Comparison, number: int, row: Row, micro: list[MicroResult], expected: Json
) -> None:
    at = f"update {number} "
    sample_size = sum(result.sample_size for result in micro)
    loss = sum(result.total.item() for result in micro)
    table.close(at + "lr", row["lr"], expected["lr"], relative=LOSS, group="lr")
    table.close(at + "gnorm", row["gnorm"], expected["gnorm"], relative=TRAJECTORY, group="gnorm")
    table.exact(at + "sample_size", sample_size, expected["sample_size"], "sample_size")
    for name, value in {
        "loss_per_target_nats": loss / sample_size,
        "loss_mean_nats": loss / sample_size,
        "loss_sum": loss,
    }.items():
        if name in expected:
            table.close(at + name, value, expected[name], relative=TRAJECTORY, group=name)
    for i, (result, of_micro) in enumerate(zip(micro, expected.get("micro", []), strict=False)):
        for theirs, ours in MICRO.items():
            if theirs in of_micro:
                found, name = result.sums[ours], f"{at}micro {i} {theirs}"
                table.close(name, found, of_micro[theirs], relative=TRAJECTORY, group=theirs)
        for theirs, ours in {"correct": "correct", "count": "targets"}.items():
            if theirs in of_micro:
                name = f"{at}micro {i} {theirs}"
                table.exact(name, result.sums[ours], of_micro[theirs], theirs)
    _compare_logged(table, at, row, expected.get("logged", {}))


def _compare_logged(table: Comparison, at: str, row: Row, logged: Json) -> None:
    """Compare a row of our history with the original's rounded log line, in bits."""
    names = {**LOGGED_ROW, "loss": "loss" if "loss" in row else "train_loss"}
    for theirs, ours in names.items():
        if theirs in logged and ours in row:
            allowed = LOGGED + 1e-5 * abs(logged[theirs])
            table.close(
                f"{at}logged {theirs}", row[ours], logged[theirs], absolute=allowed, group="logged"
            )
    if "accuracy" in row and "accuracy" in logged:
        name = f"{at}logged accuracy"
        table.close(
            name, row["accuracy"], logged["accuracy"], absolute=LOGGED_ACCURACY, group="logged"
        )


def _compare_parameters(
    table: Comparison, arrays: dict[str, np.ndarray], model: nn.Module, prefix: str
) -> None:
    own: dict[str, Tensor] = model.state_dict()
    group = prefix.removesuffix("/")
    for name, array in arrays.items():
        if name.startswith(prefix):
            short = name.removeprefix(prefix)
            if short not in own:
                table.fail(name, "expected a parameter of this name, found none", group)
            else:
                table.close(name, own[short], array, absolute=TRAJECTORY, group=group)
