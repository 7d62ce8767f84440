"""Is pretraining worth it, on a folder of real recordings? `python benchmarks/mini.py ARCHIVE`.

ARCHIVE is an unpacked mirror (`<dataset>/<version>/...`). Prepares it once, then for every seed
pretrains the demo model of params.yaml, and trains both downstream tasks from the pretraining, from
scratch, and on a frozen random encoder; for the first seed also one classifier a lead set; then two
controls. Only params.yaml's epochs, resamples, threads and `data.resample` are changed. What is
finished is not done again.
Writes `benchmarks/results/mini.csv` (one row a number) and `mini.md` (mean and sd over the seeds).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pipeline_folder import PREPARED, ROOT, run_stages

RESULTS = ROOT / "benchmarks" / "results"
STARTS = {
    "pretrained": {"init": "pretrained"},
    "scratch": {"init": "scratch"},
    "random_frozen": {"init": "random_frozen"},
}
"""What is compared. Under `freeze: conv` the conv stack of scratch rests too, at random."""

CONTROLS = {
    "pretrained_frozen": {"init": "pretrained", "freeze": "encoder"},
    "scratch_all_learns": {"init": "scratch", "freeze": "none"},
}
"""Classification alone: the linear probe, and scratch whose conv stack learns."""

LEAD_SETS = {6: [0, 1, 2, 3, 4, 5], 3: [0, 1, 7], 2: [0, 1], 1: [0]}
"""The paper's subsets as positions among the twelve leads."""

CLASSIFY = {
    "cinc_fixed": "CinC, threshold 0.5",
    "cinc_one_tuned": "CinC, one tuned",
    "cinc_class_tuned": "CinC, tuned per class",
    "auroc_macro": "AUROC macro",
    "auroc_micro": "AUROC micro",
    "auprc_macro": "AUPRC macro",
}
TRIVIAL = ("cinc_of_nothing_predicted", "cinc_of_sinus_for_everyone")
IDENTIFY = {"top1": "top-1", "top5": "top-5", "equal_error_rate": "EER"}
CHANCE = ("chance_top1", "chance_top5", "patients")
TASKS = ["classify", "identify", "leads", "controls"]
KEYS = ["task", "seed", "init", "trained_leads", "leads", "metric"]


@dataclass(frozen=True)
class Benchmark:
    """Where everything is kept, and the parameters that are not params.yaml's."""

    archive: Path
    work: Path
    settings: dict[str, object]
    only_finished: bool

    def prepare(self) -> None:
        """Bring the recordings into segments and divide them, once."""
        kept, folder = self.work / "prepared.json", self.work / "prepared"
        if kept.exists():
            return
        begin = time.perf_counter()
        stages = ["check", "download", "manifest", "preprocess", "split"]
        env = {"ECG_DATA": str(self.archive)}
        run_stages(folder, self.settings, stages, shared=(), env=env)
        kept.write_text(json.dumps({"seconds": time.perf_counter() - begin}) + "\n")

    def run(self, name: str, settings: dict[str, object], stages: list[str], seed: int) -> float:
        """Run training stages in a folder by name; return its seconds."""
        folder, begin = self.work / name, time.perf_counter()
        (folder / "models").mkdir(parents=True, exist_ok=True)
        pretrained = folder / "models/pretrained"
        if "pretrain" not in stages and not pretrained.exists():
            pretrained.symlink_to(self.work / f"pretrain-{seed}/models/pretrained")
        run_stages(
            folder,
            {**self.settings, "common.seed": seed, **settings},
            stages,
            data=self.work / "prepared/data",
            shared=(*PREPARED, "split"),
        )
        return time.perf_counter() - begin

    def kept(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Return a run's numbers, running it where it is not finished."""
        path = self.work / f"{name}.csv"
        if not path.exists():
            if self.only_finished:
                return pd.DataFrame(columns=[*KEYS, "value"])
            write(path, make())
        return pd.read_csv(path)

    def pretrain(self, seed: int) -> pd.DataFrame:
        """Pretrain with a seed; return the last epoch's numbers."""
        name = f"pretrain-{seed}"

        def numbers() -> pd.DataFrame:
            seconds = self.run(name, {}, ["pretrain"], seed)
            last = self.metrics(name, "pretrain") | {"seconds": seconds}
            return rows(last, "pretrain", seed, "", 12, 12)

        return self.kept(name, numbers)

    def classify(self, before: Future, seed: int, init: str, leads: int = 12) -> pd.DataFrame:
        """Finetune and evaluate; return the numbers per recording, of every lead set."""
        name = f"classify-{seed}-{init}-{leads}"
        before.result()

        def numbers() -> pd.DataFrame:
            start = (STARTS | CONTROLS)[init]
            settings: dict[str, object] = {f"finetune.{key}": start[key] for key in start}
            settings["finetune.leads_to_load"] = LEAD_SETS.get(leads)
            whole = {"seconds": self.run(name, settings, ["finetune", "evaluate"], seed)}
            whole["best_epoch"] = self.metrics(name, "finetune")["best_epoch"]
            recording = self.metrics(name, "evaluate")["recording"]
            whole |= {trivial: recording[trivial] for trivial in TRIVIAL}
            table = self.leads(name, "evaluate").query("unit == 'recording'")
            return lead_rows(table, whole, "classify", seed, init, leads)

        return self.kept(name, numbers)

    def identify(self, before: Future, seed: int, init: str) -> pd.DataFrame:
        """Train ArcFace and match; return the numbers of every lead set."""
        name = f"identify-{seed}-{init}"
        before.result()

        def numbers() -> pd.DataFrame:
            whole = {"seconds": self.run(name, {"identify.init": init}, ["identify"], seed)}
            return lead_rows(self.leads(name, "identify"), whole, "identify", seed, init, 12)

        return self.kept(name, numbers)

    def metrics(self, name: str, stage: str) -> dict:
        """Return a stage's metrics.json."""
        path = self.work / name / f"reports/{stage}/metrics.json"
        return json.loads(path.read_text())[stage]

    def leads(self, name: str, stage: str) -> pd.DataFrame:
        """Return a stage's leads.csv."""
        return pd.read_csv(self.work / name / f"reports/{stage}/leads.csv")


def rows(
    numbers: dict[str, float], task: str, seed: int, init: str, trained: int, leads: int
) -> pd.DataFrame:
    """Return one row a number."""
    table = pd.DataFrame({"metric": list(numbers), "value": list(numbers.values())})
    table = table.assign(task=task, seed=seed, init=init, trained_leads=trained, leads=leads)
    return table[[*KEYS, "value"]]


def lead_rows(
    table: pd.DataFrame, whole: dict[str, float], task: str, seed: int, init: str, trained: int
) -> pd.DataFrame:
    """Return the numbers of every lead set, a smaller model's own only, and the whole run's."""
    found = [rows(whole, task, seed, init, trained, trained)]
    for _, row in table[(table["leads"] == trained) | (trained == 12)].iterrows():
        numbers = row.drop(["leads", "names", "unit"], errors="ignore").dropna()
        values = {str(name): float(value) for name, value in numbers.items()}
        found.append(rows(values, task, seed, init, trained, int(row["leads"])))
    return pd.concat(found)


def write(path: Path, table: pd.DataFrame) -> None:
    """Write a table beside its place, then into it: what exists is whole."""
    table.to_csv(path.with_suffix(".tmp"), index=False, float_format="%.6g")
    path.with_suffix(".tmp").rename(path)


def all_runs(benchmark: Benchmark, seeds: list[int], tasks: list[str], jobs: int) -> pd.DataFrame:
    """Run what is wanted, the most important first, some at a time; return every number."""
    with ThreadPoolExecutor(jobs) as pool:
        # pretraining is handed out first, so a worker never waits for what has not begun
        starts = {seed: pool.submit(benchmark.pretrain, seed) for seed in seeds}
        runs = list(starts.values())
        for task in (name for name in ("classify", "identify") if name in tasks):
            train = getattr(benchmark, task)
            runs += [pool.submit(train, starts[s], s, init) for s in seeds for init in STARTS]
        if "leads" in tasks:
            first = seeds[0]
            runs += [
                pool.submit(benchmark.classify, starts[first], first, init, leads)
                for init in ("pretrained", "scratch")
                for leads in LEAD_SETS
            ]
        if "controls" in tasks:
            train = benchmark.classify
            runs += [pool.submit(train, starts[s], s, init) for s in seeds for init in CONTROLS]
        return pd.concat([found for run in runs if len(found := run.result())])


def mean_and_sd(table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Return one row an init and lead set: mean ± sd over the seeds."""
    kept = table[table["metric"].isin(list(names))]
    groups = kept.groupby(["leads", "init", "metric"])["value"]
    text = groups.mean().map("{:.3f}".format) + groups.std().map(" ± {:.3f}".format)
    wide = text.unstack("metric")[list(names)].rename(columns=names)
    order = [(leads, start) for leads in (12, *LEAD_SETS) for start in STARTS | CONTROLS]
    return wide.reindex([row for row in order if row in wide.index])


def differences(table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Return one row a number: what pretraining adds to scratch with all leads, by seed."""
    kept = table[table["metric"].isin(list(names)) & (table["leads"] == 12)]
    wide = kept.pivot_table(index=["metric", "seed"], columns="init", values="value")
    wide = wide.reindex(columns=["pretrained", "scratch"])
    added = (wide["pretrained"] - wide["scratch"]).unstack("seed").loc[list(names)]
    text = added.map("{:+.3f}".format).rename(index=names, columns="seed {}".format)
    return text.rename_axis(index="pretrained minus scratch")


def markdown(table: pd.DataFrame) -> str:
    """Return a table as Markdown, its index as first columns."""
    flat = table.reset_index()
    lines = ["| " + " | ".join(map(str, flat.columns)) + " |", "|" + "---|" * flat.shape[1]]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in flat.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def constant(table: pd.DataFrame, names: tuple[str, ...]) -> str:
    """Return numbers that are the same for every run, in words."""
    values = table[table["metric"].isin(names)].groupby("metric")["value"].first()
    return ", ".join(f"{name} {values[name]:.4g}" for name in names)


def summary(table: pd.DataFrame, settings: dict[str, object]) -> str:
    """Return mini.md."""
    by_task = dict(iter(table.groupby("task")))
    said = ", ".join(f"`{key}: {value}`" for key, value in settings.items() if key != "data.mirror")
    parts = [f"# Is pretraining worth it? Mean ± sd over the seeds\n\n{said}\n"]
    if "classify" in by_task:
        runs = by_task["classify"]
        whole = runs[runs["trained_leads"] == 12]
        few = runs[(runs["trained_leads"] != 12) & (runs["trained_leads"] == runs["leads"])]
        parts += ["## Classification, per recording of test\n", constant(whole, TRIVIAL) + "\n"]
        parts += [markdown(mean_and_sd(whole, CLASSIFY)), markdown(differences(whole, CLASSIFY))]
        if len(few):
            parts += ["## Finetuned on a lead set (first seed)\n"]
            parts += [markdown(mean_and_sd(few, CLASSIFY)).replace(" ± nan", "")]
    if "identify" in by_task:
        runs = by_task["identify"]
        parts += ["## Patient identification\n", constant(runs, CHANCE) + "\n"]
        parts += [markdown(mean_and_sd(runs, IDENTIFY)), markdown(differences(runs, IDENTIFY))]
    pretrain = by_task["pretrain"].pivot_table(index="seed", columns="metric", values="value")
    shown = ["updates", "loss", "loss_infonce", "loss_cmsc", "accuracy", "code_perplexity"]
    parts += ["## Pretraining, last epoch\n", markdown(pretrain[shown].round(4))]
    seconds = table[table["metric"] == "seconds"].groupby("task")["value"]
    parts += ["## Seconds a run\n", markdown(seconds.agg(["count", "mean", "sum"]).round(0))]
    return "\n".join(parts)


def same_settings(work: Path, settings: dict[str, object]) -> None:
    """Refuse to go on in a folder that was begun with other settings."""
    path, text = work / "settings.json", json.dumps(settings, indent=1) + "\n"
    if path.exists() and path.read_text() != text:
        sys.exit(f"{path}: begun with other settings; choose another folder by --work")
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def main() -> None:
    """Run, collect, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="folder of an unpacked mirror")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tasks", nargs="*", default=TASKS)
    parser.add_argument("--work", type=Path, default=ROOT / ".state" / "mini")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument("--pretrain-epochs", type=int, default=6)
    parser.add_argument("--finetune-epochs", type=int, default=8)
    parser.add_argument("--identify-epochs", type=int, default=1)
    parser.add_argument("--collect", action="store_true", help="only what is finished")
    args = parser.parse_args()
    settings: dict[str, object] = {
        "data.mirror": args.archive.resolve().as_uri(),
        "data.resample": True,
        "optimization.max_epoch": args.pretrain_epochs,
        "finetune.max_epoch": args.finetune_epochs,
        "identify.max_epoch": args.identify_epochs,
        "evaluate.bootstrap": 200,
        "identify.bootstrap": 200,
        "common.threads": 1,
        "common.no_progress_bar": True,
        "tracking.mlflow": False,
    }
    same_settings(args.work, settings)
    benchmark = Benchmark(args.archive.resolve(), args.work.resolve(), settings, args.collect)
    benchmark.prepare()
    table = all_runs(benchmark, args.seeds, args.tasks, args.jobs).sort_values(KEYS)
    RESULTS.mkdir(exist_ok=True)
    write(RESULTS / "mini.csv", table)
    text = summary(table, settings)
    (RESULTS / "mini.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
