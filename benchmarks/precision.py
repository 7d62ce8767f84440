"""Does bf16 learn what fp32 learns? `python -m benchmarks.precision ARCHIVE`.

ARCHIVE is an unpacked mirror (`<dataset>/<version>/...`), prepared once with `data.resample`.
Pretrains in fp32 and bf16, everything else equal: the demo model of params.yaml with five seeds,
and a model of middle width with three, on micro-batches of 8 pairs, one an update. Writes the
history of every run (`benchmarks/results/precision.csv`), a table (`precision.md`) and a figure.
What is finished is not done again.
"""

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import pandas as pd

from benchmarks.pipeline_folder import PREPARED, ROOT, run_stages

mpl.use("Agg")
import matplotlib.pyplot as plt

RESULTS = ROOT / "benchmarks" / "results"
MIDDLE: dict[str, object] = {
    "model.conv_feature_layers": [[128, 2, 2]] * 4,
    "model.encoder_layers": 4,
    "model.encoder_embed_dim": 256,
    "model.encoder_ffn_embed_dim": 1024,
    "model.encoder_attention_heads": 8,
    "model.conv_pos": 64,
    "model.conv_pos_groups": 16,
    "model.latent_vars": 160,
    "model.final_dim": 128,
    "optimization.lr": [5.0e-4],
}
WIDTHS: dict[str, dict[str, object]] = {"demo": {}, "middle": MIDDLE}
SHOWN = {
    "loss": "total",
    "loss_infonce": "InfoNCE",
    "loss_cmsc": "CMSC",
    "accuracy": "accuracy",
    "code_perplexity": "code perplexity",
    "gnorm": "gradient norm",
}


def prepare(archive: Path, work: Path) -> Path:
    """Bring the recordings into segments and divide them, once; return the data's folder."""
    folder = work / "prepared"
    settings: dict[str, object] = {
        "data.mirror": archive.resolve().as_uri(),
        "data.resample": True,
        "tracking.mlflow": False,
    }
    if not (folder / "data/split/split.csv").exists():
        stages = ["check", "download", "manifest", "preprocess", "split"]
        run_stages(folder, settings, stages, shared=(), env={"ECG_DATA": str(archive.resolve())})
    return folder / "data"


def history(
    data: Path, work: Path, width: str, precision: str, seed: int, epochs: int, pairs: int
) -> pd.DataFrame:
    """Pretrain, or read what has been; return the rows of history."""
    name = f"{width}-{precision}-{seed}"
    kept = work / f"{name}.csv"
    if not kept.exists():
        settings: dict[str, object] = {
            **WIDTHS[width],
            "common.seed": seed,
            "common.precision": precision,
            "common.no_progress_bar": True,
            "dataset.batch_size": pairs,
            "optimization.update_freq": [1],
            "optimization.max_epoch": epochs,
            "tracking.mlflow": False,
        }
        shared = (*PREPARED, "split")
        run_stages(work / name, settings, ["pretrain"], data=data, shared=shared)
        (work / name / "reports/pretrain/history.csv").rename(kept)
    return pd.read_csv(kept).assign(width=width, precision=precision, seed=seed)


def table(rows: pd.DataFrame) -> str:
    """Return the last epoch of every run as Markdown, and the seeds' means."""
    last = rows.groupby(["width", "seed", "precision"], sort=False).tail(1)
    keys = ["width", "seed", "precision", "updates"]
    lines = ["| " + " | ".join([*keys, *SHOWN.values()]) + " |", "|---" * (4 + len(SHOWN)) + "|"]
    for _, row in last.sort_values(keys).iterrows():
        values = [f"{row[name]:.4g}" for name in SHOWN]
        lines.append("| " + " | ".join([*(str(row[key]) for key in keys), *values]) + " |")
    means = last.groupby(["width", "precision"])[list(SHOWN)].agg(["mean", "std"])
    lines += ["", "| width | precision | " + " | ".join(SHOWN.values()) + " |"]
    lines += ["|---" * (2 + len(SHOWN)) + "|"]
    for (width, precision), row in means.iterrows():
        values = [f"{row[name, 'mean']:.4g} ± {row[name, 'std']:.2g}" for name in SHOWN]
        lines.append(
            f"| {width} | {precision} | " + " | ".join(values).replace(" ± nan", "") + " |"
        )
    return "\n".join(lines) + "\n"


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Draw total loss, InfoNCE and CMSC against the epoch, a line a run."""
    terms = ["loss", "loss_infonce", "loss_cmsc"]
    widths = list(dict.fromkeys(rows["width"]))
    figure, axes = plt.subplots(len(widths), 3, figsize=(11, 3.2 * len(widths)), squeeze=False)
    for line, width in zip(axes, widths, strict=True):
        for axis, term in zip(line, terms, strict=True):
            for (precision, seed), run in rows[rows["width"] == width].groupby(
                ["precision", "seed"]
            ):
                style = {"fp32": ("#0072B2", "-"), "bf16": ("#D55E00", "--")}[str(precision)]
                label = str(precision) if seed == rows["seed"].min() else None
                above = 3 if precision == "bf16" else 2
                look = {"color": style[0], "ls": style[1], "zorder": above}
                axis.plot(run["epoch"], run[term], label=label, **look)
            axis.set(xlabel="epoch", ylabel="bits a target", title=f"{width}: {SHOWN[term]}")
        line[0].legend()
    figure.tight_layout()
    for suffix in ("png", "svg"):
        figure.savefig(path.with_suffix(f".{suffix}"), dpi=110, metadata=None)
    plt.close(figure)


def main() -> None:
    """Run, tabulate, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="folder of an unpacked mirror")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--middle-seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--work", type=Path, default=ROOT / ".state" / "precision")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=8)
    args = parser.parse_args()
    work = args.work.resolve()
    data = prepare(args.archive, work)
    wanted = [("demo", seed) for seed in args.seeds]
    wanted += [("middle", seed) for seed in args.middle_seeds]
    found = []
    for width, seed in wanted:
        for precision in ("fp32", "bf16"):
            found.append(history(data, work, width, precision, seed, args.epochs, args.pairs))
    rows = pd.concat(found)
    RESULTS.mkdir(exist_ok=True)
    rows.to_csv(RESULTS / "precision.csv", index=False, float_format="%.6g")
    (RESULTS / "precision.md").write_text(table(rows))
    draw(rows, RESULTS / "precision")
    sys.stdout.write(table(rows))


if __name__ == "__main__":
    main()
