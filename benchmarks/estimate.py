"""What the full configurations would take on this machine: `make estimate`.

Runs a few steps of pretraining and finetuning on noise, on the device of common.device, and
calculates from them hours, memory and disk for the report's configuration (experiments/full.yaml)
and the paper's (full + paper200.yaml) on PhysioNet's archives. Prints what was measured, what was
calculated from it, and what was assumed. Nothing is downloaded; about two minutes on two cores.
"""

import argparse
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch

import stages  # noqa: F401 sets how torch's threads wait in the processes that measure
from benchmarks import published
from benchmarks.memory import peak_bytes as peak_of_process
from ecg_core.batches.batch import Batch
from ecg_core.batches.dataset import DatasetParams
from ecg_core.batches.pairs import cut_batches, pair_segments
from ecg_core.classes import CLASSES
from ecg_core.device import CommonParams, set_up_device
from ecg_core.finetune_params import FinetuneParams
from ecg_core.models.classifier import build_classifier, finetune_forward, predict
from ecg_core.models.encoder import ModelParams
from ecg_core.models.wav2vec2_cmsc import build_pretraining, pretrain_forward, save_pretraining
from ecg_core.params import PARAMS_FILE, parse_section, read_yaml
from ecg_core.records.mirror import SAMPLE
from ecg_core.records.raw import DataParams
from ecg_core.records.split import SplitParams, split_segments
from ecg_core.segments import count_segments, list_segments
from ecg_core.shards import segment_bytes
from ecg_core.training.objectives import (
    ClassifyObjective,
    CriterionParams,
    MicroResult,
    PretrainObjective,
)
from ecg_core.training.optimizer import (
    Adam,
    OptimizationParams,
    OptimizerParams,
    adam,
    scale_and_clip,
)
from ecg_core.training.processes import DistributedParams
from experiments.run import overlay_values

CPU_PAIRS = 8
"""Pairs of the measured micro-batch on a CPU, where 128 would take minutes a step."""
STATES = 3
"""Saved states of a training at once: the last two, and one being written."""
OUTPUTS = 5
"""Models among the outputs: pretrained; finetuned, chosen and best by each rule; identify's."""
QUIET = 0.7
"""Share of its threads' time below which a process is called disturbed."""
DEVICES = (1, 2, 4, 8)
GIGA = 1e9


@dataclass(frozen=True)
class Configuration:
    """The sections that decide what a run costs."""

    name: str
    common: CommonParams
    model: ModelParams
    criterion: CriterionParams
    dataset: DatasetParams
    world: DistributedParams
    limits: OptimizationParams
    optimizer: OptimizerParams
    finetune: FinetuneParams
    data: DataParams
    split: SplitParams


@dataclass(frozen=True)
class Work:
    """How much there is to do: counts, from the pipeline's own functions."""

    recordings: int
    segments: int
    pairs: int
    micro_batches: int
    """Of pretraining, an epoch."""
    updates: int
    """Of all of pretraining."""
    turns: dict[int, int]
    """By number of devices: micro-batches that the busiest one takes in all of pretraining."""
    train: int
    """Segments of finetuning's train, scored: those of valid and test."""
    scored: int
    finetune_updates: int


@dataclass(frozen=True)
class Measured:
    """One training step, taken apart."""

    rows: int
    """Segments of the measured micro-batch."""
    micro_seconds: float
    """Forward and backward of a micro-batch."""
    update_seconds: float
    """Norm and optimizer, once an update."""
    forward_seconds: float
    """Forward alone in eval mode (finetuning)."""
    peak_bytes: int
    start_bytes: int
    """Memory before the model is made: the interpreter and its libraries; 0 on a GPU."""
    parameters: int
    learning: int
    share: float
    """Of its threads' time, what the processor gave this process; 1 where a GPU does the work."""


def read_configuration(overlays: str) -> Configuration:
    """Return params.yaml with overlays ("full paper200") laid over it."""
    tree = read_yaml()
    for key, value in overlay_values(overlays.split()).items():
        section, name = key.split(".", 1)
        tree[section][name] = value

    def section(name, model):
        return parse_section(name, tree[name], model, PARAMS_FILE)

    return Configuration(
        name=overlays or str(PARAMS_FILE),
        common=section("common", CommonParams),
        model=section("model", ModelParams),
        criterion=section("criterion", CriterionParams),
        dataset=section("dataset", DatasetParams),
        world=section("distributed_training", DistributedParams),
        limits=section("optimization", OptimizationParams),
        optimizer=section("optimizer", OptimizerParams),
        finetune=section("finetune", FinetuneParams),
        data=section("data", DataParams),
        split=section("split", SplitParams),
    )


def sample_lengths(fs: int) -> dict[str, np.ndarray]:
    """Return the embedded recordings' numbers of samples by source, of those at a rate."""
    lengths: dict[str, list[int]] = {}
    with tarfile.open(SAMPLE, "r:xz") as archive:
        for member in archive:
            parts = member.name.split("/")
            if member.name.endswith(".hea") and "training" in parts:
                content = archive.extractfile(member)
                words = content.read().decode().split() if content else []
                if float(words[2]) == fs:
                    source = parts[parts.index("training") + 1]
                    lengths.setdefault(source, []).append(int(words[3]))
    return {source: np.array(found) for source, found in lengths.items()}


def archive_manifest(fs: int) -> pd.DataFrame:
    """Return PhysioNet's recordings at a rate: published numbers, lengths as in the sample."""
    lengths = sample_lengths(fs)
    counts = {source: n for source, n in published.RECORDINGS.items() if source in lengths}
    patients = {"ptb-xl": published.PTBXL_PATIENTS}
    return published.made_up_manifest(counts, lengths, patients)


def count_work(config: Configuration, manifest: pd.DataFrame) -> Work:
    """Divide, pair and batch a manifest as the stages do, and count."""
    counted = count_segments(manifest, fs=config.data.fs, seconds=config.data.seconds)
    segments = list_segments(counted)
    split = split_segments(manifest, segments, config.split, None)
    chosen = split[split["pretrain"] == 1]
    pairs = len(pair_segments(chosen.assign(row=np.arange(len(chosen)))))
    multiple = config.dataset.required_batch_size_multiple
    batches = len(cut_batches(pairs, config.dataset.batch_size, multiple))
    per_update = by_epoch(
        config.world.micro_batches(config.limits.update_freq), config.limits.max_epoch
    )
    sizes = [size for per in per_update for size in updates(batches, per)]
    sizes = sizes[: config.limits.max_update or None]
    parts = split["finetune"].value_counts()
    train, tune = int(parts["train"]), config.finetune
    tuned = len(cut_batches(train, tune.batch_size, tune.required_batch_size_multiple))
    steps = [
        size for per in by_epoch(tune.update_freq, tune.max_epoch) for size in updates(tuned, per)
    ]
    return Work(
        recordings=len(manifest),
        segments=len(segments),
        pairs=pairs,
        micro_batches=batches,
        updates=len(sizes),
        turns={n: sum(-(-size // n) for size in sizes) for n in DEVICES},
        train=train,
        scored=int(parts["valid"]) + int(parts["test"]),
        finetune_updates=min(len(steps), tune.max_update or len(steps)),
    )


def by_epoch(values: Sequence[int], epochs: int) -> list[int]:
    """Return a value an epoch; the last one stays."""
    return [values[min(epoch, len(values) - 1)] for epoch in range(epochs)]


def updates(batches: int, per_update: int) -> list[int]:
    """Return how many micro-batches each update of an epoch takes; the last may have fewer."""
    return [min(per_update, batches - start) for start in range(0, batches, per_update)]


def noise(rows: int, config: Configuration) -> Batch:
    """Return a micro-batch of noise, its rows in pairs."""
    number = torch.arange(rows)
    source = torch.randn(rows, config.model.in_d, round(config.data.fs * config.data.seconds))
    labels = (torch.rand(rows, len(CLASSES)) < 0.1).float()
    return Batch(source, number // 2, number % 2, labels, ("noise",) * rows)


def measure_pretraining(config: Configuration, rows: int, steps: int) -> Measured:
    """Time pretraining steps on noise."""
    device, start = set_up_device(config.common), memory()
    model = build_pretraining(config.model, config.common).to(device)
    forward = pretrain_forward(model, config.common.seed, device)
    objective = PretrainObjective(forward, config.model.temperature, config.criterion)
    optimizer = adam(model.parameters(), config.optimizer)
    model.train()
    micro, update, share = timed(objective, optimizer, noise(rows, config).to(device), steps)
    size = sum(parameter.numel() for parameter in model.parameters())
    return Measured(rows, micro, update, 0.0, peak_memory(), start, size, size, share)


def measure_finetuning(config: Configuration, rows: int, steps: int) -> Measured:
    """Time finetuning steps on noise, and scoring."""
    device, start, tune = set_up_device(config.common), memory(), config.finetune
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        save_pretraining(path, build_pretraining(config.model, config.common))
        model = build_classifier(path, tune, config.common).to(device)
    forward = finetune_forward(model, tune.freeze_finetune_updates)
    objective = ClassifyObjective(forward, tune.normalize_loss_by, tune.pos_weight)
    optimizer = Adam(model.learning(), tune.adam_betas, tune.adam_eps, tune.weight_decay)
    batch = noise(rows, config).to(device)
    model.train()
    micro, update, share = timed(objective, optimizer, batch, steps)
    seconds = seconds_of(lambda: predict(model, [batch]))
    size = sum(parameter.numel() for parameter in model.parameters())
    learning = sum(parameter.numel() for parameter in model.learning())
    return Measured(rows, micro, update, seconds, peak_memory(), start, size, learning, share)


def timed(
    objective: Callable[[Batch, int, int], MicroResult], optimizer: Adam, batch: Batch, steps: int
) -> tuple[float, float, float]:
    """Return the seconds of a micro-batch and of an update, means after a step to warm up.

    The third is what share of its threads' time the process had.
    """
    seconds = []
    processor, clock = time.process_time(), time.perf_counter()
    for number in range(1 + steps):
        optimizer.zero_grad()
        result: list[MicroResult] = []

        def micro(update: int = number, kept: list[MicroResult] = result) -> None:
            kept.append(objective(batch, update, 0))
            kept[0].total.backward()

        def update(kept: list[MicroResult] = result) -> None:
            scale_and_clip(optimizer.parameters, kept[0].sample_size or 1.0, 0.0)
            optimizer.step(0.0)

        seconds.append((seconds_of(micro), seconds_of(update)))
    means = np.mean(seconds[1:], axis=0)
    threads = (time.perf_counter() - clock) * torch.get_num_threads()
    share = 1.0 if torch.cuda.is_available() else (time.process_time() - processor) / threads
    return float(means[0]), float(means[1]), share


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long work takes, the device's queue included."""
    synchronize()
    started = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - started


def synchronize() -> None:
    """Wait for a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def memory() -> int:
    """Return the bytes of this process; 0 where a GPU's memory is what counts."""
    return 0 if torch.cuda.is_available() else int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """Return the most bytes so far, of the GPU where there is one."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return peak_of_process()


def in_a_process(
    measure: Callable[[Configuration, int, int], Measured],
    config: Configuration,
    rows: int,
    steps: int,
) -> Measured:
    """Measure in a process of its own, with half the rows for as long as a GPU has no room."""
    while True:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                return pool.submit(measure, config, rows, steps).result()
            except torch.cuda.OutOfMemoryError:
                if rows == 2:
                    raise
                rows = rows // 4 * 2


def pretraining_seconds(work: Work, measured: Measured, devices: int) -> float:
    """Return turns x seconds of a micro-batch + updates x seconds of an update."""
    rows = 2 * work.pairs / work.micro_batches
    micro = measured.micro_seconds * rows / measured.rows
    return work.turns[devices] * micro + work.updates * measured.update_seconds


def finetuning_seconds(work: Work, measured: Measured, epochs: int) -> float:
    """Return epochs x (train forward and backward, valid and test forward) + updates."""
    train = work.train * measured.micro_seconds / measured.rows
    scored = work.scored * measured.forward_seconds / measured.rows
    return epochs * (train + scored) + work.finetune_updates * measured.update_seconds


def peak_bytes(measured: Measured, rows: int) -> float:
    """Return the peak with other rows: all but start, weights and moments grows with them."""
    fixed = measured.start_bytes + 4 * measured.parameters + 8 * measured.learning
    return fixed + (measured.peak_bytes - fixed) * rows / measured.rows


def state_bytes(measured: Measured) -> int:
    """Return the size of a saved state: weights, and two moments of what learns."""
    return 4 * measured.parameters + 8 * measured.learning


def raw_bytes(lengths: dict[str, np.ndarray]) -> float:
    """Return what the signals of both archives take: 12 leads of int16."""
    samples = {source: float(np.mean(found)) for source, found in lengths.items()}
    samples |= published.OTHER_RATES_SAMPLES
    n_samples = sum(n * samples[source] for source, n in published.RECORDINGS.items())
    return segment_bytes(1) * (n_samples + published.PTBXL_RECORDINGS * samples["ptb-xl"])


def store_bytes(work: Work, config: Configuration) -> float:
    """Return the size of data/segments: segments, and gains."""
    n_samples = round(config.data.fs * config.data.seconds)
    return work.segments * segment_bytes(n_samples) + 48 * work.recordings


def report(config: Configuration, work: Work, pre: Measured, fine: Measured, raw: float) -> str:
    """Return what a configuration takes, in words."""
    micro = 2 * config.dataset.batch_size
    tune = config.finetune
    n_side = config.world.distributed_world_size * max(config.limits.update_freq)
    divided = ", ".join(
        f"{n}: {pretraining_seconds(work, pre, n) / 3600:,.1f}" for n in DEVICES if n <= n_side
    )
    outputs = OUTPUTS * 4 * pre.parameters
    states = STATES * (state_bytes(pre) + 2 * state_bytes(fine))
    gib = 2**30
    share = min(pre.share, fine.share)
    busy = f"""
  BUSY: the steps had {share:.0%} of their threads' time: the hours below are too many, measure
  again on a quiet machine
"""
    return f"""
## {config.name}

measured
  pretraining, {pre.rows // 2} pairs: {pre.micro_seconds:.2f} s a micro-batch, {pre.update_seconds:.2f} s an update, peak {pre.peak_bytes / gib:.2f} GiB
  finetuning, {fine.rows} segments: {fine.micro_seconds:.2f} s a micro-batch, {fine.update_seconds:.2f} s an update, {fine.forward_seconds:.2f} s to score, peak {fine.peak_bytes / gib:.2f} GiB
{busy if share < QUIET else ""}
calculated
  work       {work.recordings:,} recordings, {work.segments:,} segments, {work.pairs:,} pairs to pretrain on
             {config.limits.max_epoch} epochs of {work.micro_batches:,} micro-batches of {config.dataset.batch_size} pairs: {work.updates:,} updates
             finetuning: {tune.max_epoch} epochs of {work.train:,} segments, {work.scored:,} scored: {work.finetune_updates:,} updates
  hours      pretraining {pretraining_seconds(work, pre, 1) / 3600:,.1f}, finetuning {finetuning_seconds(work, fine, tune.max_epoch) / 3600:,.1f} on this device
             pretraining on N devices like this one: {divided}
  memory     pretraining {peak_bytes(pre, micro) / gib:.2f} GiB at {config.dataset.batch_size} pairs, finetuning {peak_bytes(fine, tune.batch_size) / gib:.2f} GiB at {tune.batch_size} segments
  disk       raw {raw / GIGA:.1f} GB, data/segments {store_bytes(work, config) / GIGA:.1f} GB (once more in DVC's cache without reflinks)
             {OUTPUTS} models {outputs / GIGA:.2f} GB, {STATES} states of each of 3 trainings {states / GIGA:.2f} GB
"""  # noqa: E501 a line of the output is a line here


ASSUMED = f"""
assumed
  recordings by source: PhysioNet's published numbers; none refused but those of another sampling
    rate (ptb, st_petersburg_incart), and ptb-xl/1.0.3 the same recordings as the Challenge's ptb-xl
  lengths as in the embedded sample's recordings of a source; every patient of PTB-XL has one or two
  a step takes time in proportion to its segments, and memory above weights and moments does too
  N devices: micro-batches side by side as far as an update has them; what they exchange is left out
  finetuning's single micro-batch an update is not divided; identify takes about as long, not timed
  states: at most {STATES} at once (identify's counted like finetuning's)"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each configuration, where it differs from one before, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2, help="timed steps, after one to warm up")
    parser.add_argument(
        "--pairs",
        type=int,
        help=f"most pairs of the measured micro-batch (default: {CPU_PAIRS} on a CPU, on a GPU the "
        "configuration's own, halved until they fit)",
    )
    parser.add_argument(
        "--configurations",
        nargs="*",
        default=["full", "full paper200"],
        help='sets of overlays, "" for params.yaml as it is',
    )
    given = parser.parse_args(arguments)
    most = given.pairs or (None if torch.cuda.is_available() else CPU_PAIRS)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"device: {device}; {torch.get_num_threads()} threads unless common.threads says other")
    known: dict[tuple[object, ...], tuple[Measured, Measured]] = {}
    for name in given.configurations:
        config = read_configuration(name)
        pairs = min(config.dataset.batch_size, most or config.dataset.batch_size)
        rows = min(config.finetune.batch_size, 2 * most if most else config.finetune.batch_size)
        key = (config.common, config.model, config.criterion, config.finetune, pairs, rows)
        if key not in known:
            known[key] = (
                in_a_process(measure_pretraining, config, 2 * pairs, given.steps),
                in_a_process(measure_finetuning, config, rows, given.steps),
            )
        work = count_work(config, archive_manifest(config.data.fs))
        raw = raw_bytes(sample_lengths(config.data.fs))
        print(report(config, work, *known[key], raw), end="")
    print(ASSUMED)


if __name__ == "__main__":
    main()
