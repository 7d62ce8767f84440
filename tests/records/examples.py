"""Small records and archives, written by hand as WFDB and PhysioNet define them."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ecg_core.records.raw import DataParams

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
GEORGIA = "challenge-2021/1.0.3/training/georgia/g1"
PTBXL = "ptb-xl/1.0.3/records500/00000"

Signal = npt.NDArray[np.int16]


def params(**changes: object) -> DataParams:
    """Return the parameters of the tests, without pauses between retries."""
    values: dict[str, object] = {
        "mirror": "embedded",
        "datasets": ("challenge-2021/1.0.3", "ptb-xl/1.0.3"),
        "fs": 500,
        "seconds": 5.0,
        "resample": False,
        "resample_method": "polyphase",
        "max_refused": 1.0,
        "segments_per_shard": None,
        "segments_url": None,
        "workers": 1,
        "connections": 4,
        "retries": 4,
        "backoff": 0.0,
        "timeout": 5.0,
    }
    return DataParams.model_validate({**values, **changes})


def signal(seed: int, n_samples: int = 5000, n_leads: int = 12) -> Signal:
    """Return a random walk within int16, another one for each seed."""
    steps = np.random.default_rng(seed).integers(-20, 21, (n_leads, n_samples))
    return np.cumsum(steps, axis=1).astype(np.int16)


def header(name: str, values: Signal, **changes: object) -> str:
    """Return a header of the Challenge for a signal, shape (lead, sample)."""
    given = {"suffix": "mat", "fs": 500, "gain": "1000.0(0)/mV", "leads": LEADS, "dx": "426783006"}
    given |= changes
    form = "16+24" if given["suffix"] == "mat" else "16"
    lines = [f"{name} {len(values)} {given['fs']} {values.shape[1]}"]
    for lead, row in zip(given["leads"], values, strict=False):  # type: ignore[call-overload]
        total = int(row.sum(dtype=np.int64)) % 65536
        checksum = total - 65536 if total > 32767 else total
        gain = given["gain"]
        lines.append(f"{name}.{given['suffix']} {form} {gain} 16 0 {row[0]} {checksum} 0 {lead}")
    return "\n".join([*lines, "# Age: 59", "# Sex: Female", f"# Dx: {given['dx']}"]) + "\n"


def mat(values: Signal) -> bytes:
    """Return MATLAB's Level 4 format: 20 bytes of header, the name, the matrix by columns."""
    rows, columns = values.shape
    return struct.pack("<5i", 30, rows, columns, 0, 4) + b"val\0" + dat(values)


def dat(values: Signal) -> bytes:
    """Return WFDB's format 16: the samples of all leads of one instant, then of the next."""
    return np.ascontiguousarray(values.T, "<i2").tobytes()


def write_record(
    raw: Path, folder: str, name: str, values: Signal, suffix: str = "mat", **changes: object
) -> Path:
    """Write a record and return its path without suffix."""
    stem = raw / folder / name
    stem.parent.mkdir(parents=True, exist_ok=True)
    text = header(name, values, suffix=suffix, **changes)
    stem.with_name(f"{name}.hea").write_text(text)
    content = mat(values) if suffix == "mat" else dat(values)
    stem.with_name(f"{name}.{suffix}").write_bytes(content)
    return stem


def write_ptbxl_table(raw: Path, rows: list[tuple[int, int | str, int]]) -> None:
    """Write ptbxl_database.csv with (ecg_id, patient_id, strat_fold)."""
    lines = ["ecg_id,patient_id,age,sex,strat_fold,filename_hr"]
    lines += [f"{ecg_id},{patient},61.0,1.0,{fold},x" for ecg_id, patient, fold in rows]
    path = raw / "ptb-xl/1.0.3/ptbxl_database.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def sums_of(raw: Path) -> dict[str, str]:
    """Return the SHA-256 of all files of a folder, as the download stage would after verifying."""
    return {
        str(path.relative_to(raw)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(raw.rglob("*"))
        if path.is_file()
    }


def write_listings(raw: Path) -> None:
    """Write the SHA256SUMS.txt of every tree, as PhysioNet does."""
    trees: dict[str, list[str]] = {}
    for name, sha256 in sums_of(raw).items():
        dataset, version, rest = name.split("/", 2)
        if rest != "SHA256SUMS.txt":
            trees.setdefault(f"{dataset}/{version}", []).append(f"{sha256} {rest}\n")
    for tree, lines in trees.items():
        (raw / tree / "SHA256SUMS.txt").write_text("".join(lines))
