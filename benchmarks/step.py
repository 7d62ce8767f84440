"""One training step, ours against the textbook's: time in turn in one process, memory apart.

    python -m benchmarks.step                       # base, 8 pairs: pretraining and finetuning
    python -m benchmarks.step --sizes base small demo --pairs 8 16 --rounds 3 --json FILE

A step is one update of one micro-batch: forward, backward, fused Adam. `textbook` is
`benchmarks/textbook.py` in fp32; ours are the pipeline's own model, loss and optimizer. Every round
takes each of them once, so a busy machine slows all; the ratio is of the fastest rounds. MFU is the
arithmetic of convolutions and transformer (`benchmarks/cost.py`) over time and over the fp32 or
bf16 peak: the fastest product of two 2048 x 2048 matrices of the same run. Memory is the largest
resident set of a process that does two steps and nothing else; 0.2 GiB of it are torch and numpy,
in the textbook's process too, hence the ratio without what the imports took.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from ruamel.yaml import YAML

from benchmarks import textbook
from benchmarks.memory import peak_bytes
from ecg_core.batches.batch import Batch
from ecg_core.device import CommonParams, cpu_multiplies_bf16, set_up_device
from ecg_core.models.classifier import Classifier, finetune_forward
from ecg_core.models.encoder import Encoder, ModelParams
from ecg_core.models.transformer import set_arithmetic
from ecg_core.models.wav2vec2_cmsc import build_pretraining, draw, pretrain_forward
from ecg_core.params import parse_section
from ecg_core.training.objectives import ClassifyObjective, CriterionParams, PretrainObjective
from ecg_core.training.optimizer import Adam, scale_and_clip

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = 2500
OVERLAYS = {"base": ("full",), "small": ("full", "small"), "demo": ()}
VARIANTS = {
    "fp32": ("fp32", False),
    "bf16": ("bf16", False),
    "fp32, checkpointing": ("fp32", True),
    "bf16, checkpointing": ("bf16", True),
}
"""Of ours: precision, and whether activations are computed again instead of kept."""


def parameters(size: str) -> dict:
    """Return params.yaml with the overlays that make a model of this size."""
    yaml = YAML(typ="safe")
    params = yaml.load(ROOT / "params.yaml")
    for name in OVERLAYS[size]:
        for section, changes in yaml.load(ROOT / f"experiments/{name}.yaml").items():
            params[section].update(changes)
    return params


def section(params: dict, name: str, model: type) -> ModelParams | CommonParams | CriterionParams:
    """Return one section, as the pipeline reads it."""
    return parse_section(name, params[name], model, ROOT / "params.yaml")


def textbook_size(model: ModelParams) -> textbook.Size:
    """Return the textbook's words for a model's size."""
    return textbook.Size(
        layers=model.encoder_layers,
        width=model.encoder_embed_dim,
        inner=model.encoder_ffn_embed_dim,
        heads=model.encoder_attention_heads,
        channels=model.feature_channels,
        positions=model.conv_pos,
        position_groups=model.conv_pos_groups,
        entries=model.latent_vars,
        final=model.final_dim,
    )


def made_up_batch(pairs: int) -> Batch:
    """Return noise in the shape of a micro-batch."""
    rows = 2 * pairs
    number = torch.arange(rows)
    labels = (torch.rand(rows, 26) < 0.1).float()
    source = torch.randn(rows, 12, SAMPLES)
    return Batch(source, number // 2, number % 2, labels, ("noise",) * rows)


def textbook_step(task: str, params: dict, batch: Batch) -> Callable[[], float]:
    """Return a function that does one textbook update."""
    model_params = section(params, "model", ModelParams)
    size = textbook_size(model_params)
    torch.manual_seed(1)
    if task == "finetune":
        model = textbook.Classification(size)
        inputs = batch.source, batch.labels
        # the conv stack rests, as in ours
        for module in (model.convs, model.group_norm):
            module.requires_grad_(False)
    else:
        model = textbook.Pretraining(size)
        draws = draw(model_params, len(batch.source), SAMPLES, 1, 0, 0)
        inputs = batch.source, draws.span_mask, draws.negatives
    adam = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01, fused=True)
    return lambda: textbook.step(model, adam, *inputs)


def common_of(params: dict, variant: str) -> CommonParams:
    """Return section `common` of one of our variants."""
    precision, checkpointing = VARIANTS[variant]
    changes = {
        "precision": precision,
        "activation_checkpointing": checkpointing,
        "threads": torch.get_num_threads(),
        "device": "cpu",
    }
    return section(params, "common", CommonParams).model_copy(update=changes)


def our_step(task: str, params: dict, batch: Batch, variant: str) -> Callable[[], float]:
    """Return a function that does one update of the pipeline's own."""
    common = common_of(params, variant)
    model_params = section(params, "model", ModelParams)
    if task == "finetune":
        start = params["finetune"]
        dropouts = {
            name: start[name]
            for name in ("dropout", "attention_dropout", "activation_dropout", "dropout_input")
        }
        encoder = Encoder(model_params.model_copy(update={**dropouts, "feature_grad_mult": 0.0}))
        set_arithmetic(encoder, common)
        model = Classifier(encoder, 26, final_dropout=0.0)
        objective = ClassifyObjective(finetune_forward(model, 0), "labels", None)
    else:
        model = build_pretraining(model_params, common)
        forward = pretrain_forward(model, 1, torch.device("cpu"))
        criterion = section(params, "criterion", CriterionParams)
        objective = PretrainObjective(forward, model_params.temperature, criterion)
    model.train()
    adam = Adam(model.parameters(), (0.9, 0.98), 1e-6, 0.01)
    updates = iter(range(10**6))

    def step() -> float:
        adam.zero_grad()
        result = objective(batch, next(updates), 0)
        result.total.backward()
        scale_and_clip(model.parameters(), result.sample_size, 0.0)
        adam.step(5e-5)
        return float(result.total.detach()) / result.sample_size

    return step


def make_step(variant: str, task: str, size: str, pairs: int) -> Callable[[], float]:
    """Return a function that does one update, as in the textbook or by a variant of ours."""
    params, batch = parameters(size), made_up_batch(pairs)
    if variant == "textbook":
        return textbook_step(task, params, batch)
    return our_step(task, params, batch, variant)


def gemm_peak(dtype: torch.dtype, rounds: int = 5) -> float:
    """Return the GFLOP/s of the fastest product of two 2048 x 2048 matrices."""
    n = 2048
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    slow = dtype == torch.bfloat16 and not cpu_multiplies_bf16()
    if slow:  # minutes otherwise: a sixteenth of the columns tells the speed
        b, rounds = b[:, : n // 16].contiguous(), 1
    return max(2 * n * n * b.shape[1] / seconds(lambda: a @ b) / 1e9 for _ in range(rounds))


def arithmetic(task: str, model: ModelParams, pairs: int) -> int:
    """Return the operations of a step: backward is twice forward, but not for what rests."""
    # imported here: the processes whose memory is taken do without what it imports
    from benchmarks.cost import forward_flop

    whole = forward_flop(model, SAMPLES)
    resting = forward_flop(model.model_copy(update={"encoder_layers": 0, "conv_pos": 0}), SAMPLES)
    return 2 * pairs * (3 * whole - (2 * resting if task == "finetune" else 0))


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def timed(task: str, size: str, pairs: int, rounds: int) -> list[dict]:
    """Time textbook, fp32 and bf16 in turn; return a row each."""
    steps = {name: make_step(name, task, size, pairs) for name in ("textbook", "fp32", "bf16")}
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    peaks = {"fp32": gemm_peak(torch.float32), "bf16": gemm_peak(torch.bfloat16)}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(seconds(step))
        peaks["fp32"] = max(peaks["fp32"], gemm_peak(torch.float32, 2))
    best = {name: min(values) for name, values in times.items()}
    flop = arithmetic(task, section(parameters(size), "model", ModelParams), pairs)
    rows = []
    for name, time_of_best in best.items():
        precision = "bf16" if name == "bf16" and cpu_multiplies_bf16() else "fp32"
        rows.append(
            {
                "name": f"{task} step, {size}, {pairs} pairs, {name}",
                "ours": time_of_best,
                "textbook": best["textbook"],
                "ratio": best["textbook"] / time_of_best,
                "unit": "s",
                "tflop": flop / 1e12,
                "gemm_peak_gflops": peaks[precision],
                "bf16_peak_gflops": peaks["bf16"],
                "mfu": flop / time_of_best / 1e9 / peaks[precision],
                "rounds": rounds,
                "emulated": name == "bf16" and not cpu_multiplies_bf16(),
            }
        )
    return rows


def peak_memory(task: str, size: str, pairs: int, variant: str) -> tuple[float, float]:
    """Return the GiB that a process of its own has after its imports, and at most in two steps."""
    asked = ["--one", variant, "--tasks", task, "--sizes", size, "--pairs", str(pairs)]
    command = [sys.executable, "-m", "benchmarks.step", *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imports, peak = map(float, done.stdout.split())
    return imports, peak


def memory(task: str, size: str, pairs: int, variants: list[str]) -> list[dict]:
    """Return a row of peak memory for every variant."""
    imports, plain = peak_memory(task, size, pairs, "textbook")
    rows = []
    for variant in variants:
        own_imports, own = peak_memory(task, size, pairs, variant)
        rows.append(
            {
                "name": f"{task} memory, {size}, {pairs} pairs, {variant}",
                "ours": own,
                "textbook": plain,
                "ratio": own / plain,
                "ratio_beyond_imports": (own - own_imports) / (plain - imports),
                "unit": "GiB",
            }
        )
    return rows


def one(variant: str, task: str, size: str, pairs: int) -> None:
    """Print the largest memory of this process in GiB so far, and after two steps."""
    print(peak_bytes() / 2**30)
    if variant in VARIANTS:
        # decides for the process what becomes of freed memory: not where variants share one
        set_up_device(common_of(parameters(size), variant))
    step = make_step(variant, task, size, pairs)
    step()
    step()
    print(peak_bytes() / 2**30)


def line(row: dict) -> str:
    """Return a row as a line of the table."""
    mfu = f"  MFU {row['mfu']:.2f}" if "mfu" in row else ""
    if "ratio_beyond_imports" in row:
        mfu = f"  without imports {row['ratio_beyond_imports']:.2f}"
    note = "  (bf16 computed in fp32)" if row.get("emulated") else ""
    return (
        f"{row['name']:<52} {row['ours']:9.3f} {row['unit']:<4} "
        f"textbook {row['textbook']:9.3f}  ratio {row['ratio']:5.2f}{mfu}{note}"
    )


def main() -> None:
    """Measure what is asked for and print it line by line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=list(OVERLAYS), default=["base"])
    parser.add_argument("--pairs", nargs="+", type=int, default=[8])
    tasks = ["pretrain", "finetune"]
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=tasks)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--no-memory", action="store_true")
    what.add_argument("--no-time", action="store_true")
    what.add_argument("--one", choices=["textbook", *VARIANTS], help="what a child process does")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one:
        return one(args.one, args.tasks[0], args.sizes[0], args.pairs[0])
    rows = []
    for size in args.sizes:
        for task in args.tasks:
            for pairs in args.pairs:
                found = [] if args.no_time else timed(task, size, pairs, args.rounds)
                if not args.no_memory and size == "base":
                    variants = list(VARIANTS) if task == "pretrain" else ["fp32", "bf16"]
                    found += memory(task, size, pairs, variants)
                rows += found
                print("\n".join(map(line, found)), flush=True)
                if args.json:
                    args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
