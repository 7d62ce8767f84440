"""Bring the raw files from the mirror: what is there is verified, what is not is fetched."""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from ecg_core.outputs import write_bytes
from ecg_core.records.mirror import EMBEDDED, Mirror, open_mirror
from ecg_core.records.raw import (
    LISTING,
    BadRawFiles,
    DataParams,
    parse_sums,
    tree_of,
    wanted_files,
)
from ecg_core.remote import NotThere, Unreachable

_log = logging.getLogger(__name__)
_SIZES_ASKED = 64
_GIGABYTE = 1e9

Thing = TypeVar("Thing")
Result = TypeVar("Result")


class BadMirror(BadRawFiles):
    """The mirror holds files that do not match its own listing, or does not hold them."""


@dataclass(frozen=True)
class Fetched:
    """A file after it was asked for; `problem` says why it is not there, "" if it is."""

    path: str
    n_bytes: int
    problem: str


def download(raw: Path, params: DataParams) -> dict[str, str]:
    """Bring all wanted files into the raw folder and return their verified SHA-256 sums.

    May be interrupted at any moment and run again: a verified file is not fetched a second time.
    Raises BadMirror naming every file that does not match, Unreachable, or BadRawFiles.
    """
    mirror = open_mirror(params)
    sums = _listed(mirror, raw, params)
    with ThreadPool(params.connections) as pool:
        missing = _unverified(pool, raw, sums)
        _log.info("%d of %d files are there and verified", len(sums) - len(missing), len(sums))
        if missing:
            _spare_own_archive(raw, missing, params)
            n_bytes = _expected_bytes(pool, mirror, missing)
            _require_space(raw, n_bytes, stores=params.segments_url is None)
            _fetch_all(pool, mirror, raw, {path: sums[path] for path in missing}, n_bytes)
    return sums


def _listed(mirror: Mirror, raw: Path, params: DataParams) -> dict[str, str]:
    """Return the sums of all wanted files, and keep each tree's listing beside its files."""
    sums: dict[str, str] = {}
    for tree in dict.fromkeys(tree_of(name) for name in params.datasets):
        path = f"{tree}/{LISTING}"
        try:
            content = mirror.read(path)
        except (Unreachable, NotThere) as refusal:
            raise type(refusal)(
                f"{refusal}\n(is the archive here already, with its {LISTING}? "
                "then let data.mirror be file:// and its folder, and ECG_DATA that folder)"
            ) from refusal
        listing = parse_sums(content.decode("utf-8", "replace"), f"{params.mirror}/{path}")
        for chosen in params.datasets:
            if tree_of(chosen) == tree:
                wanted = wanted_files(listing, chosen, resample=params.resample)
                sums.update({f"{tree}/{name}": listing[name] for name in wanted})
        _keep_listing(raw / path, content, params)
        sums[path] = hashlib.sha256(content).hexdigest()
    return sums


def _keep_listing(own: Path, content: bytes, params: DataParams) -> None:
    if own.is_file() and own.read_bytes() == content:
        return
    if own.is_file() and os.environ.get("ECG_DATA"):
        raise BadRawFiles(
            f"{own}: expected the {LISTING} of data.mirror {params.mirror}, found another one: "
            "ECG_DATA holds an archive of its own; let data.mirror be file:// and that folder"
        )
    write_bytes(own, content)


def _spare_own_archive(raw: Path, paths: Iterable[str], params: DataParams) -> None:
    """Refuse to put files of the sample in place of other ones in somebody's own archive."""
    if params.mirror == EMBEDDED and os.environ.get("ECG_DATA"):
        others = [path for path in paths if (raw / path).exists()]
        if others:
            raise BadRawFiles(
                f"{raw / others[0]}: expected the embedded sample's file, found another one; "
                "ECG_DATA holds an archive of its own; let data.mirror be file:// and that folder"
            )


def _unverified(pool: ThreadPool, raw: Path, sums: dict[str, str]) -> list[str]:
    def is_verified(path: str) -> bool:
        return _sha256(raw / path) == sums[path]

    bar = tqdm(total=len(sums), desc="verify", unit="files", unit_scale=True, disable=None)
    with bar:
        verified = []
        for path, there in _each(pool, is_verified, sums):
            bar.update()
            if there:
                verified.append(path)
    return sorted(set(sums) - set(verified))


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _expected_bytes(pool: ThreadPool, mirror: Mirror, paths: list[str]) -> int:
    """Estimate what is to be fetched from the sizes of some files of each kind."""

    def size_of(path: str) -> int | None:
        try:
            return mirror.size(path)
        except NotThere:
            return None  # fetching it will say so by name

    total = 0.0
    for suffix in sorted({Path(path).suffix for path in paths}):
        kind = [path for path in paths if Path(path).suffix == suffix]
        asked = kind[:: max(1, len(kind) // _SIZES_ASKED)]
        sizes = [size for _, size in _each(pool, size_of, asked) if size is not None]
        total += len(kind) * sum(sizes) / max(1, len(sizes))
    return round(total)


def _require_space(raw: Path, n_bytes: int, *, stores: bool) -> None:
    """Refuse to begin what would fill the disk: the files and, where it is one disk, the store."""
    folder = next(path for path in (raw, *raw.resolve().parents) if path.is_dir())
    what, needed = "what is to be fetched", n_bytes
    if stores and folder.stat().st_dev == Path.cwd().stat().st_dev:
        what, needed = f"{what} and as much again for its segments", 2 * n_bytes
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BadRawFiles(
            f"{raw}: expected about {needed / _GIGABYTE:.3f} GB of free space for {what}, "
            f"found {free / _GIGABYTE:.3f} GB"
        )


def _fetch_all(
    pool: ThreadPool, mirror: Mirror, raw: Path, sums: dict[str, str], n_bytes: int
) -> None:
    def fetch(path: str) -> Fetched:
        return _fetch(mirror, raw, path, sums[path])

    problems = []
    bar = tqdm(total=n_bytes, desc="download", unit="B", unit_scale=True, disable=None)
    with bar:
        for done, (_, fetched) in enumerate(_each(pool, fetch, sums), 1):
            if fetched.problem:
                problems.append(fetched.problem)
            bar.total = max(n_bytes, bar.n + fetched.n_bytes)
            bar.set_postfix_str(f"{done}/{len(sums)} files", refresh=False)
            bar.update(fetched.n_bytes)
    if problems:
        shown = "\n".join(f"  {problem}" for problem in sorted(problems)[:20])
        raise BadMirror(
            f"expected {len(sums)} files to match {LISTING}, "
            f"found {len(problems)} that do not:\n{shown}"
        )


def _fetch(mirror: Mirror, raw: Path, path: str, sha256: str) -> Fetched:
    """Fetch a file, once more if it does not match, and put it in its place only if it does."""
    found = ""
    for _ in range(2):
        try:
            content = mirror.read(path)
        except NotThere as refusal:
            return Fetched(path, 0, str(refusal))
        found = hashlib.sha256(content).hexdigest()
        if found == sha256:
            write_bytes(raw / path, content)
            return Fetched(path, len(content), "")
    return Fetched(path, 0, f"{path}: expected SHA-256 {sha256}, found {found} twice")


def _each(
    pool: ThreadPool, function: Callable[[Thing], Result], things: Iterable[Thing]
) -> Iterator[tuple[Thing, Result]]:
    def both(thing: Thing) -> tuple[Thing, Result]:
        return thing, function(thing)

    return pool.imap_unordered(both, things)
