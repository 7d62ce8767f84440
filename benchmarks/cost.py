"""The table of docs/cost.md, what 10 million recordings would cost: `python -m benchmarks.cost`.

Every value is a formula of published numbers, of params.yaml with its overlays, of what
`python -m benchmarks.index` has measured (benchmarks/results/index.json), and of the assumptions
that the table begins with. `--write` puts it into the page; a test holds the page against it.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.estimate import Configuration, read_configuration
from benchmarks.index import OUT
from ecg_core.models.encoder import ModelParams
from ecg_core.models.wav2vec2_cmsc import Wav2Vec2CMSC
from ecg_core.segments import segments_in
from ecg_core.shards import segment_bytes

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/cost.md"
BEGIN, END = "<!-- the table: python -m benchmarks.cost --write -->", "<!-- end of the table -->"

RECORDINGS = 10_000_000
SECONDS = 10
PER_SHARD = 8192
PEAK = {"bf16": 312e12, "TF32": 156e12}
"""FLOP/s of an NVIDIA A100 by its data sheet (dense)."""
MFU = 0.3
GPUS = 8
PREPROCESS_CORES = 16
PUBLISHED_PAIRS_SEEN = 16_000_000
"""Pairs that the paper's run saw: 200 epochs of about 80 000."""


class Row(NamedTuple):
    """A line of the table."""

    what: str
    formula: str
    value: str


def forward_flop(model: ModelParams, n_samples: int) -> int:
    """Return the operations (2 a multiplication with addition) of a segment's forward pass.

    Convolutions, projection, positions as a convolution, and layers; the heads, below 1 % of the
    base model, are left out.
    """
    width, total, frames, channels = model.encoder_embed_dim, 0, n_samples, model.in_d
    for out, kernel, stride in model.conv_feature_layers:
        frames = (frames - kernel) // stride + 1
        total += 2 * frames * channels * kernel * out
        channels = out
    total += 2 * frames * channels * width
    total += 2 * frames * width * width // model.conv_pos_groups * model.conv_pos
    weights = 4 * width * width + 2 * width * model.encoder_ffn_embed_dim
    layer = 2 * frames * weights + 4 * frames * frames * width
    return total + model.encoder_layers * layer


def scaled(measured: dict[str, Any], what: str, name: str) -> float:
    """Return a measured number, brought to all recordings in proportion."""
    return float(measured[what][name]) * RECORDINGS / float(measured[what]["recordings"])


def rows(measured: dict[str, Any], config: Configuration) -> list[Row]:
    """Return the table."""
    fs, seconds = config.data.fs, config.data.seconds
    return [*_data(measured, fs, seconds), *_training(config), *_knowing(measured)]


def _data(measured: dict[str, Any], fs: int, seconds: float) -> list[Row]:
    per_recording = segments_in(SECONDS * fs, float(fs), fs, seconds)
    n_segments = RECORDINGS * per_recording
    n_bytes = segment_bytes(round(fs * seconds))
    store, shard = n_segments * n_bytes, PER_SHARD * n_bytes
    cut = measured["preprocess"]["seconds"] / measured["preprocess"]["recordings"]
    hashing = measured["checksum"]["mb"] / measured["checksum"]["seconds"]
    minutes = RECORDINGS * cut / 60
    return [
        Row(
            "segments",
            f"{RECORDINGS:,} recordings of {SECONDS} s x {per_recording}",
            f"{n_segments:,}",
        ),
        Row("a segment", f"12 leads x {round(fs * seconds)} samples x 2 B", f"{n_bytes:,} B"),
        Row("store", f"{n_segments:,} x {n_bytes:,} B", f"{store / 1e12:.2f} TB"),
        Row("a shard", f"{PER_SHARD:,} segments x {n_bytes:,} B", f"{shard / 1e6:.1f} MB"),
        Row("shards", f"{n_segments:,} / {PER_SHARD:,}", f"{math.ceil(n_segments / PER_SHARD):,}"),
        Row("raw signals", f"{RECORDINGS:,} x 12 x {SECONDS * fs} x 2 B", f"{store / 1e12:.2f} TB"),
        Row(
            "preprocessing, processor alone",
            f"{RECORDINGS:,} x {cut * 1e6:.0f} us measured / {PREPROCESS_CORES} cores",
            f"{minutes / PREPROCESS_CORES:.1f} min",
        ),
        Row(
            "local disk meanwhile",
            f"{PREPROCESS_CORES} workers x {shard / 1e6:.1f} MB",
            f"{PREPROCESS_CORES * shard / 1e9:.1f} GB",
        ),
        Row(
            "upload at 10 Gbit/s",
            f"{store / 1e12:.2f} TB / 1.25 GB/s",
            f"{store / 1.25e9 / 60:.0f} min",
        ),
        Row(
            "checksums, once a process",
            f"{store / 1e12:.2f} TB / {hashing:,.0f} MB/s measured",
            f"{store / 1e6 / hashing / 60:.0f} min of a core",
        ),
    ]


def _training(config: Configuration) -> list[Row]:
    per_update = (
        config.dataset.batch_size * config.world.micro_batches(config.limits.update_freq)[0]
    )
    pairs = RECORDINGS
    updates = math.ceil(pairs / per_update)
    n_samples = round(config.data.fs * config.data.seconds)
    flop = 3 * forward_flop(config.model, n_samples)
    speed = {name: peak * MFU / flop for name, peak in PEAK.items()}
    epoch = {name: 2 * pairs / value / 3600 for name, value in speed.items()}
    n_bytes = segment_bytes(n_samples)
    parameters = sum(p.numel() for p in Wav2Vec2CMSC(config.model).parameters())
    read = speed["bf16"] * n_bytes
    update = 2 * per_update / speed["bf16"] / GPUS
    exchanged = 2 * (GPUS - 1) / GPUS * 4 * parameters
    epochs = config.limits.max_epoch
    return [
        Row("pairs", f"{RECORDINGS:,} x 1", f"{pairs:,}"),
        Row("updates an epoch", f"{pairs:,} / {per_update:,} pairs an update", f"{updates:,}"),
        Row("updates of a run", f"{updates:,} x {epochs} epochs", f"{updates * epochs:,}"),
        Row(
            "arithmetic of a segment",
            f"3 x {forward_flop(config.model, n_samples) / 1e9:.2f} GFLOP (backward: 2 x forward)",
            f"{flop / 1e9:.1f} GFLOP",
        ),
        *(
            Row(
                f"segments a second and GPU, {name}",
                f"{PEAK[name] / 1e12:.0f} TFLOP/s x MFU {MFU} / {flop / 1e9:.1f} GFLOP",
                f"{value:,.0f}",
            )
            for name, value in speed.items()
        ),
        *(
            Row(
                f"GPU-hours an epoch, {name}",
                f"{2 * pairs:,} / {speed[name]:,.0f} / 3600",
                f"{value:,.1f}",
            )
            for name, value in epoch.items()
        ),
        Row(
            "GPU-hours of a run, bf16",
            f"{epoch['bf16']:,.1f} x {epochs} epochs",
            f"{epoch['bf16'] * epochs:,.0f}",
        ),
        Row(
            "GPU-hours for as many pairs as the paper saw, bf16",
            f"{epoch['bf16']:,.1f} x {PUBLISHED_PAIRS_SEEN:,} / {pairs:,}",
            f"{epoch['bf16'] * PUBLISHED_PAIRS_SEEN / pairs:,.1f}",
        ),
        Row(
            "store to a GPU, nothing cached",
            f"{speed['bf16']:,.0f} x {n_bytes:,} B",
            f"{read / 1e6:.0f} MB/s",
        ),
        Row(
            f"store to {GPUS} GPUs, nothing cached",
            f"{GPUS} x {read / 1e6:.0f} MB/s",
            f"{GPUS * read / 1e9:.2f} GB/s",
        ),
        Row(
            "store to all GPUs, an epoch, every shard once",
            f"{2 * pairs:,} x {n_bytes:,} B",
            f"{2 * pairs * n_bytes / 1e12:.2f} TB",
        ),
        Row(
            "the same with random rows and a cache of a tenth",
            f"{2 * pairs:,} rows x 0.9 missed x {PER_SHARD * n_bytes / 1e6:.1f} MB a shard",
            f"{2 * pairs * 0.9 * PER_SHARD * n_bytes / 1e15:,.0f} PB",
        ),
        Row(
            f"gradients between {GPUS} GPUs, each, an update",
            f"2 x {GPUS - 1}/{GPUS} x 4 B x {parameters:,} parameters",
            f"{exchanged / 1e6:.0f} MB",
        ),
        Row(
            "the same a second",
            f"{exchanged / 1e6:.0f} MB / ({2 * per_update:,} / {speed['bf16']:,.0f} / {GPUS} s)",
            f"{exchanged / update / 1e9:.2f} GB/s",
        ),
        Row("a model", f"4 B x {parameters:,}", f"{4 * parameters / 1e6:.0f} MB"),
        Row(
            "a state",
            f"(4 + 8) B x {parameters:,} (weights, moments)",
            f"{12 * parameters / 1e9:.2f} GB",
        ),
        Row(
            "states on disk",
            f"3 x {12 * parameters / 1e9:.2f} GB (two, and one being written)",
            f"{36 * parameters / 1e9:.2f} GB",
        ),
    ]


def _knowing(measured: dict[str, Any]) -> list[Row]:
    index, parquet = measured["index"], measured["parquet"]
    memory = {what: scaled(measured, what, "peak_mb") for what in ("manifest", "works", "split")}
    memory["pairs"] = scaled(measured, "pairs", "peak_mb")
    names = {
        "manifest": "reading the manifest",
        "works": "preprocess: what is to be done",
        "split": "split and leak report",
        "pairs": "pretrain: split, pairs and batches",
    }
    at = f"measured at {measured['split']['recordings']:,.0f} recordings, in proportion"
    return [
        Row(
            "recordings.csv, gains.f32",
            f"measured at {index['recordings']:,.0f} recordings",
            f"{index['csv_mb']:.0f} MB, {index['gains_mb']:.0f} MB",
        ),
        Row(
            "opening the store",
            f"measured at {index['recordings']:,.0f} recordings",
            f"{index['seconds']:.0f} s, {index['peak_mb'] / 1e3:.1f} GB a process",
        ),
        Row(
            "the same list as Parquet",
            "measured",
            f"{parquet['parquet_mb']:.0f} MB on disk, {parquet['seconds']:.1f} s, "
            f"{parquet['peak_mb'] / 1e3:.1f} GB",
        ),
        *(
            Row(
                name,
                at,
                f"{scaled(measured, what, 'seconds') / 60:.1f} min of a core, "
                f"{memory[what] / 1e3:.1f} GB",
            )
            for what, name in names.items()
        ),
        Row(
            "manifest.csv, split.csv",
            at,
            f"{scaled(measured, 'manifest', 'csv_mb') / 1e3:.1f} GB, "
            f"{scaled(measured, 'split', 'csv_mb') / 1e3:.1f} GB",
        ),
    ]


def table() -> str:
    """Return the table as it stands in the page."""
    config = read_configuration("full paper200")
    lines = [Row("what", "how", "value"), Row("---", "---", "---:")]
    lines += rows(json.loads((ROOT / OUT).read_text()), config)
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def page_with(text: str, new: str) -> str:
    """Return the page with another table in it."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{new}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put it into docs/cost.md")
    if parser.parse_args().write:
        PAGE.write_text(page_with(PAGE.read_text(), table()))
    else:
        print(table())


if __name__ == "__main__":
    main()
