"""The raw files: which trees are wanted, where they lie, and which records are in them."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, field_validator

from ecg_core.outputs import write_text
from ecg_core.params import Section
from ecg_core.refusal import Refusal

LISTING = "SHA256SUMS.txt"
CHALLENGE, PTBXL = "challenge-2021", "ptb-xl"
PTBXL_SOURCE = "ptb-xl-database"
"""The source name of the PTB-XL tree of its own; in the Challenge's tree `ptb-xl` is a source."""
PTBXL_TABLE = "ptbxl_database.csv"

_DATASET = re.compile(rf"({CHALLENGE}|{PTBXL})/[0-9][0-9.]*(/[\w.-]+)*")
_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *]?(\S.*)")


class BadRawFiles(Refusal):
    """The raw files, or a listing of them, cannot be used."""


class DataParams(Section):
    """The section `data` of params.yaml."""

    mirror: Annotated[str, Field(pattern=r"^(embedded|[a-z0-9+]+://.+)$")]
    datasets: Annotated[tuple[str, ...], Field(min_length=1)]
    fs: Annotated[int, Field(ge=1)]
    seconds: Annotated[float, Field(gt=0)]
    resample: bool
    resample_method: Literal["polyphase", "linear"]
    max_refused: Annotated[float, Field(ge=0, le=1)]
    segments_per_shard: Annotated[int, Field(ge=1)] | None
    segments_url: Annotated[str, Field(pattern=r"^[a-z0-9+]+://.+$")] | None
    workers: Annotated[int, Field(ge=1)]
    connections: Annotated[int, Field(ge=1)]
    retries: Annotated[int, Field(ge=0)]
    backoff: Annotated[float, Field(ge=0)]
    timeout: Annotated[float, Field(gt=0)]

    @field_validator("datasets")
    @classmethod
    def _are_known_trees(cls, datasets: tuple[str, ...]) -> tuple[str, ...]:
        for name in datasets:
            if not _DATASET.fullmatch(name) or ".." in name.split("/"):
                raise ValueError(
                    f"expected {CHALLENGE}/<version> or {PTBXL}/<version>, or a folder inside one"
                )
        return tuple(dict.fromkeys(datasets))


@dataclass(frozen=True)
class RecordFiles:
    """The files of one record; `path` is relative to the raw folder and has no suffix."""

    source: str
    record_id: str
    dataset: str
    path: str
    suffixes: tuple[str, ...]


def raw_folder() -> Path:
    """Return where raw files live: $ECG_DATA, else data/raw of the project."""
    own = os.environ.get("ECG_DATA")
    return Path(own) if own else Path(os.environ.get("DVC_ROOT", "."), "data", "raw")


def tree_of(dataset: str) -> str:
    """Return `<dataset>/<version>` of an entry of `data.datasets`."""
    return "/".join(dataset.split("/")[:2])


def parse_sums(text: str, where: str) -> dict[str, str]:
    """Return path to SHA-256 of a SHA256SUMS.txt; refuse bad lines and paths that leave the folder.

    Raises BadRawFiles with the line number.
    """
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _SUM_LINE.fullmatch(line.rstrip())
        if not match:
            raise BadRawFiles(f"{where}, line {number}: expected 'SHA-256 path', found {line!r}")
        path = match[2].removeprefix("./")
        require_inside(path, f"{where}, line {number}")
        if sums.setdefault(path, match[1]) != match[1]:
            raise BadRawFiles(f"{where}, line {number}: expected one SHA-256 of {path}, found two")
    return sums


def require_inside(path: str, where: str) -> None:
    """Raise BadRawFiles for a path that is absolute or would leave its folder."""
    parts = path.split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or re.search(r"[\\\0]|^[A-Za-z]:", path):
        raise BadRawFiles(f"{where}: expected a path inside the folder, found {path!r}")


def write_checksums(path: Path, sums: Mapping[str, str]) -> None:
    """Write verified files as `sha256sum` does, sorted by path."""
    write_text(path, "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))


def read_checksums(path: Path) -> dict[str, str]:
    """Return what the download stage has verified; raise BadRawFiles when it has not run."""
    if not path.is_file():
        raise BadRawFiles(f"{path}: expected a file, found none; run python -m stages.download")
    return parse_sums(path.read_text(), str(path))


def require_raw(raw: Path, sums: Mapping[str, str]) -> None:
    """Raise BadRawFiles, naming the command that brings them, when a tree of raw files is gone."""
    for tree in sorted({tree_of(name) for name in sums}):
        if not (raw / tree).is_dir():
            raise BadRawFiles(
                f"{raw / tree}: expected the raw files of data/checksums.txt, found none; "
                "run python -m stages.download (or set ECG_DATA to where they are)"
            )


def wanted_files(listing: Iterable[str], chosen: str, *, resample: bool) -> list[str]:
    """Return the listed paths of a tree that an entry of `data.datasets` asks for.

    The tree's own tables are always wanted; of PTB-XL's two versions the 100 Hz one only where
    `resample` is true and there is no 500 Hz one.
    """
    tree = tree_of(chosen)
    inside = chosen.removeprefix(tree).strip("/")
    names = sorted(listing)
    in_folder = [name for name in names if f"{name}/".startswith(f"{inside}/" if inside else "")]
    if not in_folder:
        folders = sorted({str(PurePosixPath(name).parent) for name in names})
        raise BadRawFiles(
            f"params.yaml: data.datasets: expected a folder of {tree}, found {chosen!r} "
            f"(there are {', '.join(folders[:8])} …)"
        )
    listed = set(names)
    wanted = [
        name
        for name in in_folder
        if not _is_low_rate(tree, name) or (resample and _high_rate(name) not in listed)
    ]
    return sorted({*wanted, *(name for name in names if "/" not in name)})


def unused_versions(
    raw: Path, sums: Mapping[str, str], params: DataParams
) -> Iterator[dict[str, str]]:
    """Yield PTB-XL's recordings at 100 Hz that are listed but not wanted, and why.

    `sums` are the verified files, the listing of each tree among them.
    """
    for chosen in params.datasets:
        tree = tree_of(chosen)
        listing = f"{tree}/{LISTING}"
        if tree.startswith(f"{PTBXL}/") and listing in sums:
            listed = parse_sums((raw / listing).read_text(), str(raw / listing))
            for name in listed:
                low = _is_low_rate(tree, name) and name.endswith(".hea")
                if low and f"{tree}/{name}".startswith(chosen) and f"{tree}/{name}" not in sums:
                    used = _high_rate(name) in listed
                    yield {
                        "source": PTBXL_SOURCE,
                        "record_id": PurePosixPath(name).stem,
                        "path": f"{tree}/{name.removesuffix('.hea')}",
                        "why": "there is a 500 Hz version" if used else "data.resample is false",
                    }


def _is_low_rate(tree: str, name: str) -> bool:
    return tree.startswith(f"{PTBXL}/") and name.startswith("records100/")


def _high_rate(name: str) -> str:
    """Return the path of the 500 Hz version of a file of PTB-XL's 100 Hz version."""
    path = PurePosixPath(name.replace("records100/", "records500/", 1))
    return str(path.with_name(path.name.replace("_lr.", "_hr.")))


def find_records(sums: Iterable[str], datasets: Iterable[str]) -> list[RecordFiles]:
    """Return the records among verified files: trees in the order of `datasets`, then by name."""
    suffixes: dict[str, list[str]] = {}
    for name in sums:
        stem, dot, suffix = name.rpartition(".")
        if dot and suffix in ("hea", "mat", "dat"):
            suffixes.setdefault(stem, []).append(suffix)
    trees = list(dict.fromkeys(tree_of(name) for name in datasets))
    records = [
        RecordFiles(source, PurePosixPath(stem).name, tree_of(stem), stem, tuple(sorted(found)))
        for stem, found in suffixes.items()
        if tree_of(stem) in trees and (source := _source_of(stem))
    ]
    return sorted(records, key=lambda r: (trees.index(r.dataset), r.source, r.record_id, r.path))


def _source_of(stem: str) -> str | None:
    parts = stem.split("/")
    if parts[0] == PTBXL and len(parts) > 3 and parts[2] in ("records100", "records500"):
        return PTBXL_SOURCE
    if parts[0] == CHALLENGE and len(parts) > 4 and parts[2] == "training":
        return parts[3]
    return None
