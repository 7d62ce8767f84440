"""Our learning curves beside the original's, on the same recordings: `python benchmarks/curves.py`.

Trains the demo model of params.yaml with three seeds on the record list of `records.csv`, finetunes
each from its pretraining and from scratch, and draws both against `original_curves.csv` (what the
original code logged on these recordings; pretraining two seeds, the second for 40 epochs).
Writes `benchmarks/results/curves.json`, `.csv`, `.png` and `.svg`. About 25 minutes on 2 cores.
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from pipeline_folder import ROOT, run_stages

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
RECORDS = HERE / "records.csv"

BARS = {
    "loss": (7.5, 8.3),
    "loss_infonce": (0.0, 6.3),
    "loss_cmsc": (0.0, 1.8),
    "accuracy": (0.065, 1.0),
    "code_perplexity": (115.0, 160.0),
}
"""What the seeds' mean at the last epoch has to lie between, to be among the original's curves."""

NAMES = {
    "loss": ("loss", "total loss (bits a target)"),
    "loss_infonce": ("loss_0", "InfoNCE (bits)"),
    "loss_penalty": ("loss_2", "feature penalty x 10 (bits)"),
    "loss_cmsc": ("loss_3", "CMSC (bits)"),
    "accuracy": ("accuracy", "InfoNCE accuracy"),
    "code_perplexity": ("code_perplexity", "code perplexity"),
}

FINETUNE = {
    "split.file": str(RECORDS),
    "finetune.batch_size": 16,
    "finetune.lr": [5.0e-4],
    "finetune.max_epoch": 25,
    "tracking.mlflow": False,
    "common.no_progress_bar": True,
}


def one_seed(work: Path, seed: int, changes: dict[str, object]) -> pd.DataFrame:
    """Pretrain, finetune from it and from scratch; return all histories (kept in the folder)."""
    kept = work / f"seed-{seed}.csv"
    if kept.exists():
        return pd.read_csv(kept)
    settings = {**changes, "common.seed": seed}
    folder = work / f"seed-{seed}"
    run_stages(folder, settings, ["split", "pretrain", "finetune"])
    pretrain = pd.read_csv(folder / "reports/pretrain/history.csv").assign(run="pretrain")
    tuned = pd.read_csv(folder / "reports/finetune/history.csv").assign(run="pretrained")
    run_stages(folder, {**settings, "finetune.init": "scratch"}, ["finetune"])
    scratch = pd.read_csv(folder / "reports/finetune/history.csv").assign(run="scratch")
    histories = pd.concat([pretrain, tuned, scratch]).assign(seed=seed)
    histories.to_csv(kept, index=False)
    return histories


def draw(ours: pd.DataFrame, original: pd.DataFrame) -> None:
    """Draw every curve of both, ours in colour, the original's in black."""
    figure, axes = plt.subplots(2, 4, figsize=(17, 7.5), layout="constrained")
    for ax, (name, (theirs, label)) in zip(axes.flat, NAMES.items(), strict=False):
        for _, curve in ours[ours["run"] == "pretrain"].groupby("seed"):
            ax.plot(curve["epoch"], curve[name], color="#0072B2", alpha=0.8)
        kept = original[original["config"].str.startswith("pt_") & (original["metric"] == theirs)]
        for _, curve in kept.groupby("seed"):
            ax.plot(curve["epoch"], curve["value"], color="black", linewidth=1, linestyle="--")
        ax.set(xlabel="pretraining epoch", ylabel=label)
    for ax, (ours_name, metric, label) in zip(
        list(axes.flat)[6:],
        [
            ("test_auroc_micro", "auroc", "test AUROC (micro, segments)"),
            ("test_loss", "loss", "test loss (bits a label entry)"),
        ],
        strict=True,
    ):
        for run, colour in (("pretrained", "#0072B2"), ("scratch", "#D55E00")):
            for _, curve in ours[ours["run"] == run].groupby("seed"):
                ax.plot(curve["epoch"], curve[ours_name], color=colour, alpha=0.8)
            config = "pt55" if run == "pretrained" else "scratch"
            kept = original[
                original["config"].str.startswith("ft_")
                & original["config"].str.endswith(config)
                & (original["split"] == "test")
                & (original["metric"] == metric)
            ]
            for _, curve in kept.groupby("seed"):
                ax.plot(curve["epoch"], curve["value"], color=colour, linewidth=1, linestyle="--")
        ax.set(xlabel="finetuning epoch", ylabel=label)
    figure.suptitle(
        "Demo model (319,456 parameters) on the same 141 recordings: "
        "ours (solid, 3 seeds) and the original code (dashed).  "
        "Finetuning: blue from pretraining, orange from scratch"
    )
    for suffix in ("png", "svg"):
        figure.savefig(
            RESULTS / f"curves.{suffix}",
            dpi=110,
            metadata={"Date": None} if suffix == "svg" else None,
        )


def final_auroc(ours: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Return micro test AUROC after 25 epochs of finetuning, from pretraining and from scratch."""
    final = ours[ours["epoch"] == 25].pivot_table(
        index="seed", columns="run", values="test_auroc_micro"
    )
    return {
        run: {
            "seeds": final[run].round(4).tolist(),
            "mean": round(float(final[run].mean()), 4),
            "sd": round(float(np.std(final[run], ddof=1)), 4) if len(final) > 1 else 0.0,
        }
        for run in ("pretrained", "scratch")
    }


def demo(work: Path, seeds: list[int]) -> None:
    """Ask of params.yaml's own recordings and split whether finetuning gains by pretraining."""
    changes: dict[str, object] = {"tracking.mlflow": False, "common.no_progress_bar": True}
    ours = pd.concat([one_seed(work / "demo", seed, changes) for seed in seeds])
    result = {"test_auroc_micro_epoch_25": final_auroc(ours)}
    (RESULTS / "demo.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def main() -> None:
    """Train, compare, draw; exit with 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--work", type=Path, default=ROOT / ".state" / "curves")
    parser.add_argument("--draw-only", action="store_true", help="from results/curves.csv")
    parser.add_argument(
        "--demo", action="store_true", help="params.yaml's own recordings and split instead"
    )
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    if args.demo:
        return demo(args.work, args.seeds)
    table = RESULTS / "curves.csv"
    if not args.draw_only:
        pd.concat([one_seed(args.work, seed, FINETUNE) for seed in args.seeds]).to_csv(
            table, index=False
        )
    ours = pd.read_csv(table)
    original = pd.read_csv(HERE / "original_curves.csv")
    last = ours[(ours["run"] == "pretrain") & (ours["epoch"] == 55)].set_index("seed")
    result: dict[str, object] = {
        "pretrain_epoch_55": {
            name: {
                "ours": last[name].round(4).tolist(),
                "bar": list(bar),
                "mean": round(float(last[name].mean()), 4),
                "seeds_within": int(last[name].between(*bar).sum()),
                "ok": bool(bar[0] <= last[name].mean() <= bar[1]),
            }
            for name, bar in BARS.items()
        }
    }
    auroc = final_auroc(ours)
    result["test_auroc_micro_epoch_25"] = auroc
    better = bool(auroc["pretrained"]["mean"] > auroc["scratch"]["mean"])  # type: ignore[operator]
    result["pretraining_helps"] = better
    (RESULTS / "curves.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    draw(ours, original)
    if not better or not all(v["ok"] for v in result["pretrain_epoch_55"].values()):  # type: ignore[attr-defined]
        sys.exit("a bar is missed")


if __name__ == "__main__":
    main()
