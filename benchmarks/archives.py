"""The offline side at full size: `python -m benchmarks.archives FOLDER [--recordings 20000]`.

FOLDER holds ecg-sample.tar.xz, physionet-mini.tar.xz and bad-inputs.tar.xz. Prints a table of what
is asked of the archives and what was measured; ratios come from one run. Needs about 10 GB of disk
at 20 000 recordings (`--work`), and an otherwise quiet machine.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import scipy.io

from benchmarks.copies import make_copies
from ecg_core.manifest import read_manifest
from ecg_core.params import read_yaml
from ecg_core.records.preprocess import build_segments
from ecg_core.records.raw import DataParams
from ecg_core.records.wfdb_io import read_recording
from ecg_core.segments import open_segments
from tests.records.examples import sums_of
from tests.records.faulty_server import faulty_mirror

ROOT = Path(__file__).resolve().parents[1]
FULL = 88_253
STAGES = ("download", "manifest", "preprocess", "split")

Row = tuple[str, str, str]
"""What is asked, the bar, and what was measured."""


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archives", type=Path)
    parser.add_argument("--recordings", type=int, default=20_000)
    parser.add_argument("--work", type=Path, help="a folder for about 10 GB, emptied afterwards")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work) as name:
        work = Path(name)
        for archive in ("ecg-sample", "physionet-mini", "bad-inputs"):
            with tarfile.open(given.archives / f"{archive}.tar.xz") as tar:
                tar.extractall(work / archive, filter="data")
        rows = [
            *faults(work / "ecg-sample", work / "faults"),
            *damage(),
            *mini(work / "physionet-mini", work / "mini"),
            *rates(work / "mini", work / "original"),
            *full_size(work / "ecg-sample", work / "many", given.recordings),
        ]
    print("\n| asked | bar | measured |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def settle(project: Path, mirror: str, **changes: object) -> dict[str, object]:
    """Write the project's parameters with another mirror into a folder of its own."""
    project.mkdir(parents=True)
    tree = read_yaml(ROOT / "params.yaml")
    tree["data"] |= {"mirror": mirror, **changes}
    # JSON is YAML
    (project / "params.yaml").write_text(json.dumps({k: tree[k] for k in ("data", "split")}))
    return dict(tree["data"])


def start(stage: str, project: Path) -> subprocess.Popen[bytes]:
    """Start a stage as a process of its own in a project's folder."""
    gone = ("ECG_DATA", "DVC_ROOT")
    environment = {key: value for key, value in os.environ.items() if key not in gone}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"stages.{stage}"]
    return subprocess.Popen(command, cwd=project, env=environment, stderr=subprocess.PIPE)


def run(stage: str, project: Path) -> str:
    """Run a stage to its end and return its log."""
    process = start(stage, project)
    _, log = process.communicate()
    if process.returncode:
        raise SystemExit(f"{stage}: {log.decode()}")
    return log.decode()


def faults(mirror: Path, project: Path, kills: int = 5) -> list[Row]:
    """Download through faults of every kind and several kills, and count what was fetched."""
    chance = random.Random(1)
    kinds = ["503", "cut", "drop", "wrong"]
    injected: Counter[str] = Counter()

    def fault(path: str, before: int) -> str:
        kind = chance.choice([*kinds, "", "", "", ""]) if before < 3 else ""
        if kind == "wrong" and (before or "SUMS" in path):
            kind = "503"
        injected[kind] += 1
        return kind

    again: list[str] = []
    with faulty_mirror(mirror) as server:
        server.fault = fault
        settle(project, server.url, backoff=0.01)
        expected = sums_of(mirror)
        for attempt in range(kills + 1):
            there = sums_of(project / "data/raw") if attempt else {}
            verified = {name for name, sha in there.items() if expected.get(name) == sha}
            before = len(server.log)
            process = start("download", project)
            if attempt < kills:
                time.sleep(chance.uniform(1.0, 2.5))
                process.send_signal(signal.SIGKILL)
            process.communicate()
            asked = {name for name, _ in server.log[before:] if "SUMS" not in name}
            again += sorted(asked & verified)
    found = sums_of(project / "data/raw")
    whole = sum(found.get(name) == sha for name, sha in expected.items())
    injected.pop("", None)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(injected.items()))
    return [
        ("files verified after faults", "all", f"{whole} of {len(expected)} ({told})"),
        (f"verified files fetched again, {kills} kills", "0", str(len(again))),
    ]


def damage() -> list[Row]:
    """Run the tests of real and made damage."""
    tests = "tests/records/test_checks.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-vv", tests],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    real = done.stdout.count("test_a_real_defect_is_refused_for_its_reasons")
    kinds = done.stdout.count("test_damage_is_refused_for_every_reason_it_gives")
    state = "all as they should" if not done.returncode else "FAILED"
    return [
        ("real defective records", "right reasons", f"{real}, {state}"),
        ("further kinds of damage", "40", f"{kinds} and 250 random changes, {state}"),
    ]


def mini(mirror: Path, project: Path) -> list[Row]:
    """Take physionet-mini from download to split and print its counts."""
    settle(project, f"file://{mirror}")
    for stage in STAGES:
        run(stage, project)
    counts = json.loads((project / "reports/manifest/metrics.json").read_text())["manifest"]
    split = json.loads((project / "reports/split/metrics.json").read_text())["split"]
    print(f"physionet-mini: {json.dumps(counts, indent=1)}\n{json.dumps(split)}")
    leaks = sum(
        count
        for others in split["leaks"].values()
        for shared in others.values()
        for count in shared.values()
    )
    told = f"{counts['kept']} of {counts['records']} kept, {leaks} leaks"
    return [("physionet-mini to the split", "goes through", told)]


def rates(project: Path, original: Path) -> list[Row]:
    """Preprocess and read as the original does and as we do, on physionet-mini, warm."""
    manifest = read_manifest(project / "data/manifest/manifest.csv")
    challenge = manifest["dataset"].str.startswith("challenge")
    manifest = manifest[challenge].reset_index(drop=True)
    raw = project / "data/raw"
    paths = [raw / path for path in manifest["path"]]
    gains = [read_recording(path).gains[:, None].astype(np.float64) for path in paths]
    ours, theirs = project / "rates", []
    values = read_yaml(project / "params.yaml")["data"] | {"workers": 1}
    params = DataParams.model_validate_json(json.dumps(values))
    times = {"theirs": [], "ours": []}
    for _ in range(5):
        for folder in (original, ours):
            shutil.rmtree(folder, ignore_errors=True)
        original.mkdir()
        started = time.process_time(), time.perf_counter()
        theirs = [name for p, g in zip(paths, gains, strict=True) for name in cut(p, g, original)]
        times["theirs"].append(_since(started))
        started = time.process_time(), time.perf_counter()
        build_segments(manifest, raw, ours, project / "rates.state", params)
        times["ours"].append(_since(started))
    cpu, wall = (
        min(t[i] for t in times["theirs"]) / min(t[i] for t in times["ours"]) for i in (0, 1)
    )
    per_second = len(paths) / min(t[0] for t in times["ours"])
    raw_bytes = sum(path.with_suffix(".mat").stat().st_size for path in paths)
    store_bytes = sum(path.stat().st_size for path in ours.iterdir())
    original_bytes = sum(path.stat().st_size for path in theirs)
    return [
        (
            "preprocessing, recordings a second and core, to the original's way",
            "5",
            f"{cpu:.1f} by CPU time, {wall:.1f} by the clock ({per_second:.0f}/s)",
        ),
        (
            "size of the store to the raw signals",
            "1.05",
            f"{store_bytes / raw_bytes:.3f} (the original's way {original_bytes / raw_bytes:.2f})",
        ),
        *reading(ours, theirs),
    ]


def cut(path: Path, gains: np.ndarray, out: Path) -> list[Path]:
    """Preprocess a record as the original does: loadmat, divide, a .mat file a segment."""
    millivolt = scipy.io.loadmat(path.with_suffix(".mat"))["val"] / gains
    names = []
    for number in range(millivolt.shape[1] // 2500):
        feats = millivolt[:, number * 2500 : (number + 1) * 2500]
        names.append(out / f"{path.name}_{number}.mat")
        content = {"feats": feats, "curr_sample_rate": 500, "label": np.zeros(26, bool)}
        scipy.io.savemat(names[-1], content)
    return names


def reading(store_folder: Path, files: list[Path]) -> list[Row]:
    """Read random batches of 32 segments as float32 millivolt, from the store and from files."""
    store = open_segments(store_folder)
    batches = np.random.default_rng(1).integers(0, len(store), (60, 32))

    def from_files() -> None:
        for batch in batches:
            feats = [scipy.io.loadmat(files[row])["feats"] for row in batch]
            np.stack(feats).astype(np.float32)

    def from_store() -> None:
        for batch in batches:
            store.read(batch)

    seconds = {}
    for name, function in (("files", from_files), ("store", from_store)):
        function()
        taken = []
        for _ in range(5):
            started = time.process_time(), time.perf_counter()
            function()
            taken.append(_since(started))
        seconds[name] = [min(t[i] for t in taken) for i in (0, 1)]
    cpu, wall = (seconds["files"][i] / seconds["store"][i] for i in (0, 1))
    rate = batches.size / seconds["store"][1]
    told = f"{cpu:.1f} by CPU time, {wall:.1f} by the clock ({rate:.0f} segments/s)"
    return [("random batches, segments a second, to loadmat a segment file", "8", told)]


def full_size(sample: Path, project: Path, n_recordings: int) -> list[Row]:
    """Time all stages on many altered copies of the sample, from a server of its own process."""
    mirror = project.with_name("copies")
    make_copies(sample, mirror, n_recordings)
    serve = "import sys; from benchmarks.copies import serve; serve(sys.argv[1])"
    command = [sys.executable, "-c", serve, str(mirror)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as server:
        try:
            port = int(server.stdout.readline()) if server.stdout else 0
            settle(project, f"http://127.0.0.1:{port}", datasets=["challenge-2021/1.0.3"])
            measured = {stage: watched(stage, project) for stage in STAGES}
        finally:
            server.terminate()
    kept = len(read_manifest(project / "data/manifest/manifest.csv"))
    print(f"{n_recordings} copies, {kept} kept")
    store = sum(path.stat().st_size for path in (project / "data/segments").iterdir())
    raw = sum(path.stat().st_size for path in mirror.rglob("*.mat"))
    total = sum(seconds for seconds, _, _ in measured.values())
    rows = [
        (
            f"{stage}, {n_recordings} recordings",
            "500 MB a worker" if stage == "preprocess" else "-",
            f"{seconds:.0f} s; largest process {late:.0f} MB ({early:.0f} MB in the first half)",
        )
        for stage, (seconds, early, late) in measured.items()
    ]
    shutil.rmtree(mirror)
    return [
        *rows,
        ("store to raw signals, at that size", "1.05", f"{store / raw:.3f}"),
        (f"download to split, {n_recordings} recordings", "-", f"{total:.0f} s"),
        (f"the same for {FULL}", "stated", f"{total * FULL / n_recordings / 60:.0f} min"),
    ]


def watched(stage: str, project: Path) -> tuple[float, float, float]:
    """Run a stage; return seconds, and megabytes of its largest process, early and at all."""
    sizes: list[tuple[float, float]] = []
    started = time.perf_counter()
    process = start(stage, project)
    log = threading.Thread(target=lambda: process.stderr and process.stderr.read())
    log.start()
    watcher = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            family = [watcher, *watcher.children(recursive=True)]
            largest = max(each.memory_info().rss for each in family) / 1e6
            sizes.append((time.perf_counter() - started, largest))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.1)
    log.join()
    if process.returncode:
        raise SystemExit(f"{stage} failed")
    seconds = time.perf_counter() - started
    early = max(size for at, size in sizes if at <= seconds / 2)
    return seconds, early, max(size for _, size in sizes)


def _since(started: tuple[float, float]) -> tuple[float, float]:
    return time.process_time() - started[0], time.perf_counter() - started[1]


if __name__ == "__main__":
    main()
