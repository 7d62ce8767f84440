"""What each fast form gains over the plain one, at the base model's sizes, in turn.

    python -m benchmarks.tricks [--rounds 10] [--threads 2] [--json FILE]

8 pairs: 16 segments of 156 frames, width 768, 12 heads. Each line times a form forwards and
backwards and gives the fastest round; a ratio above 1 says that it is worth its lines.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ecg_core.models import precision
from ecg_core.models.attention import attention
from ecg_core.models.dropout import dropout
from ecg_core.models.positions import convolve_by_fft

BATCH, FRAMES, WIDTH, HEADS, INNER = 16, 156, 768, 12, 3072
Form = Callable[..., Tensor]


def both_ways(form: Form, inputs: list[Tensor]) -> None:
    """Run a form forwards and backwards."""
    for value in inputs:
        value.grad = None
    output = form(*inputs)
    output.backward(torch.ones_like(output))


def fastest(forms: dict[str, tuple[Form, list[Tensor]]], rounds: int) -> dict[str, float]:
    """Time forms in turn; return each one's fastest round in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(rounds + 1):
        for name, (form, inputs) in forms.items():
            start = time.perf_counter()
            both_ways(form, inputs)
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: min(values[1:]) for name, values in times.items()}


def leaf(*shape: int) -> Tensor:
    """Return noise that wants a gradient."""
    return (torch.randn(*shape) * 0.02).requires_grad_()


def separate_projections(x: Tensor, *parts: Tensor) -> Tensor:
    """Project by three weights."""
    weights, biases = parts[:3], parts[3:]
    return torch.cat([F.linear(x, w, b) for w, b in zip(weights, biases, strict=True)], -1)


def merged_projections(x: Tensor, *parts: Tensor) -> Tensor:
    """Project by one weight made of three."""
    return F.linear(x, torch.cat(parts[:3]), torch.cat(parts[3:]))


def comparisons() -> dict[str, tuple[Form, Form, list[Tensor]]]:
    """Return plain form, ours, and their inputs, by name."""
    x = leaf(BATCH, FRAMES, WIDTH)
    heads = [leaf(BATCH, HEADS, FRAMES, WIDTH // HEADS) for _ in range(3)]
    weight, bias = leaf(INNER, WIDTH), leaf(INNER)
    back, back_bias = leaf(WIDTH, INNER), leaf(WIDTH)
    channels = leaf(BATCH, WIDTH, FRAMES)
    taps = leaf(WIDTH, WIDTH // 16, 128)
    projections = [leaf(WIDTH, WIDTH) for _ in range(3)] + [leaf(WIDTH) for _ in range(3)]

    def by_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows: Tensor = precision._Linear.apply(x.flatten(0, -2), weight, bias)
        return rows

    return {
        "dropout, 16-bit thresholds": (
            lambda x: F.dropout(x, 0.1),
            lambda x: dropout(x, 0.1, True),
            [x],
        ),
        "attention that keeps its probabilities": (
            lambda *qkv: F.scaled_dot_product_attention(*qkv, dropout_p=0.1),
            lambda *qkv: attention(*qkv, None, 0.1),
            heads,
        ),
        "positions by FFT": (
            lambda x, w: F.conv1d(x, w, padding=64, groups=16)[..., :FRAMES],
            lambda x, w: convolve_by_fft(x, w, 16),
            [channels, taps],
        ),
        "768 x 3072 as a 1 x 1 convolution": (F.linear, by_convolution, [x, weight, bias]),
        "3072 x 768 as a 1 x 1 convolution": (
            F.linear,
            by_convolution,
            [leaf(BATCH, FRAMES, INNER), back, back_bias],
        ),
        "merged projections (not used)": (
            separate_projections,
            merged_projections,
            [x, *projections],
        ),
    }


def bf16_product(rounds: int) -> dict[str, float]:
    """Time torch's own bf16 product of a few rows, and ours."""
    x, weight = torch.randn(256, WIDTH).bfloat16(), torch.randn(WIDTH, WIDTH).bfloat16()
    bias = torch.zeros(WIDTH).bfloat16()
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(min(rounds, 3)):  # the plain one may take seconds
        for name, form in (("plain", F.linear), ("ours", precision.product_of_rows)):
            start = time.perf_counter()
            form(x, weight, bias)
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: min(values) for name, values in times.items()}


def main() -> None:
    """Time all of them and print a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for name, (plain, ours, inputs) in comparisons().items():
        times = fastest({"plain": (plain, inputs), "ours": (ours, inputs)}, args.rounds)
        rows.append((name, times))
    rows.append(("bf16 product, 256 rows", bf16_product(args.rounds)))
    sys.stdout.write(f"{'':42}{'plain ms':>10}{'ours ms':>10}{'ratio':>8}\n")
    for name, times in rows:
        ratio = times["plain"] / times["ours"]
        sys.stdout.write(f"{name:<42}{times['plain']:10.2f}{times['ours']:10.2f}{ratio:8.2f}\n")
    if args.json:
        table = [
            {"name": name, "ours": t["ours"], "textbook": t["plain"], "unit": "ms"}
            | {"ratio": t["plain"] / t["ours"]}
            for name, t in rows
        ]
        args.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
