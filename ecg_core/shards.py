"""The files that hold a store's segments: one or many, beside its index or behind a URL.

A shard holds a stretch of the segments, one after another, each lead-first, int16, little-endian.
Those behind a URL are fetched whole when first touched, into $ECG_CACHE (default
.state/segments-cache), of which $ECG_CACHE_GB is the upper size.
"""

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ecg_core.leads import LEADS
from ecg_core.refusal import Refusal

RETRY_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each further attempt on a place that fails; they change no result."""
_GIGABYTE = 1e9

Digital = npt.NDArray[np.int16]


class BadSegments(Refusal):
    """A folder is no whole store of segments, or a shard of it is not what its index says."""


class Shard(NamedTuple):
    """A file of segments, as `store.json` describes it."""

    name: str
    segments: int
    size: int
    """Bytes."""
    sha256: str | None
    """None is verified by its size alone: the one file of a store without shards."""


def segment_bytes(n_samples: int) -> int:
    """Return what a segment takes on disk."""
    return len(LEADS) * n_samples * 2


def require_size(path: Path, size: int) -> None:
    """Raise BadSegments for a file that is missing, empty, or of another size."""
    found = path.stat().st_size if path.is_file() else None
    if found != size or not size:
        raise BadSegments(f"{path}: expected {size} bytes (more than 0), found {found}")


def map_shard(path: Path, shard: Shard, where: str) -> Digital:
    """Return a shard's segments, shape (segment, lead, sample), mapped from a file.

    Raises BadSegments, saying `where`, when it is missing, has not its size or not its SHA-256.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != shard.size:
                raise BadSegments(f"{where}: expected {shard.size} bytes, found {found}")
            # a plain view: slices of numpy's memmap class cost more than reading them
            values: Digital = np.asarray(np.memmap(file, "<i2", mode="r"))
    except FileNotFoundError:
        raise BadSegments(f"{where}: expected {shard.size} bytes, found no file") from None
    if shard.sha256 is not None:
        sha256 = hashlib.sha256(values.data.cast("B")).hexdigest()
        if sha256 != shard.sha256:
            raise BadSegments(f"{where}: expected SHA-256 {shard.sha256}, found {sha256}")
    return values.reshape(shard.segments, len(LEADS), -1)


class ShardCache:
    """Shards of a URL on the local disk; several processes and threads may share the folder."""

    def __init__(self, url: str, largest: int) -> None:
        """Refuse an upper size that is no number or below `largest`, the largest shard's bytes."""
        own, limit = os.environ.get("ECG_CACHE"), os.environ.get("ECG_CACHE_GB")
        root = Path(os.environ.get("DVC_ROOT", "."), ".state", "segments-cache")
        self.url = url
        self.folder = Path(own) if own else root
        try:
            self.limit = round(float(limit) * _GIGABYTE) if limit else None
        except (ValueError, OverflowError):
            raise Refusal(f"ECG_CACHE_GB: expected gigabytes, found {limit!r}") from None
        if self.limit is not None and self.limit < largest:
            raise Refusal(
                f"ECG_CACHE_GB: expected room for a shard, {largest / _GIGABYTE} GB, found {limit}"
            )

    def map(self, shard: Shard) -> Digital:
        """Return a shard's segments, fetched first where they are not here or are damaged.

        Raises BadSegments with URL, expected and found.
        """
        path = self.path(shard)
        with suppress(BadSegments):
            return map_shard(path, shard, str(path))
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(f"{shard.sha256}.lock"):
            with suppress(BadSegments):  # another process may have fetched it meanwhile
                return map_shard(path, shard, str(path))
            self._make_room(shard.size)
            return self._fetch(shard)

    def path(self, shard: Shard) -> Path:
        """Return where a shard lies once it is fetched."""
        return self.folder / f"{shard.sha256}.i16"

    def touch(self, shard: Shard) -> None:
        """Note that a shard is used, so that others leave first."""
        if self.limit is not None:
            with suppress(FileNotFoundError):
                os.utime(self.path(shard))

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self.folder / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make_room(self, n_bytes: int) -> None:
        """Let the least recently used shards leave; what others are fetching is not counted."""
        if self.limit is None:
            return
        with self._locked("lock"):
            files = [(path.stat(), path) for path in self.folder.glob("*.i16")]
            total = sum(status.st_size for status, _ in files) + n_bytes
            for status, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
                if total <= self.limit:
                    return
                path.unlink()
                total -= status.st_size

    def _fetch(self, shard: Shard) -> Digital:
        # half a second to import, which a store on disk never needs
        import fsspec

        from ecg_core.remote import NotThere, Unreachable, tried

        url, path = f"{self.url}/{shard.name}", self.path(shard)
        beside = path.with_suffix(".tmp")

        def get() -> None:
            system, root = fsspec.core.url_to_fs(self.url)
            system.get_file(f"{root.rstrip('/')}/{shard.name}", str(beside))

        def fetch() -> Digital:
            tried(get, url, RETRY_PAUSES)
            return map_shard(beside, shard, url)

        try:
            try:
                segments = fetch()
            except BadSegments:  # what does not match is fetched once more
                segments = fetch()
        except (NotThere, Unreachable) as refusal:
            raise BadSegments(f"{refusal} (a shard of {shard.size} bytes)") from refusal
        except (ValueError, ImportError) as error:
            raise BadSegments(f"{url}: expected a URL, found: {error}") from error
        beside.replace(path)
        return segments


class Shards:
    """A store's segments by row; a shard is verified when a process first touches it."""

    def __init__(self, folder: Path, shards: Sequence[Shard], url: str | None) -> None:
        """Raise BadSegments when a local shard is missing or has not its size."""
        self.folder = folder
        self.shards = tuple(shards)
        self._ends = np.cumsum([shard.segments for shard in shards])
        self._cache = None if url is None else ShardCache(url, max(s.size for s in shards))
        if url is None:
            for shard in shards:
                require_size(folder / shard.name, shard.size)
        self._open()

    def __getstate__(self) -> dict[str, object]:
        """Leave maps and locks behind: another process makes its own."""
        return {**self.__dict__, "_maps": None, "_locks": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Take over everything but maps and locks."""
        self.__dict__.update(state)
        self._open()

    def each(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, Digital]]:
        """Yield (position in `rows`, segment), a shard's segments one after another."""
        numbers = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(numbers).tolist():
            segments = self._segments(number)
            first = self._ends[number] - self.shards[number].segments
            for position in np.flatnonzero(numbers == number).tolist():
                yield position, segments[rows[position] - first]

    def _open(self) -> None:
        self._maps: dict[int, Digital] = {}
        self._locks = [threading.Lock() for _ in self.shards]

    def _segments(self, number: int) -> Digital:
        shard, found = self.shards[number], self._maps.get(number)
        if found is None:
            with self._locks[number]:
                found = self._maps.get(number)
                if found is None:
                    found = self._map(shard)
                    self._maps[number] = found
        if self._cache is not None:
            self._cache.touch(shard)
        return found

    def _map(self, shard: Shard) -> Digital:
        if self._cache is None:
            path = self.folder / shard.name
            return map_shard(path, shard, str(path))
        segments = self._cache.map(shard)
        # a file that has left the cache takes up space for as long as it is mapped
        for number in list(self._maps):
            if not self._cache.path(self.shards[number]).exists():
                self._maps.pop(number, None)
        return segments
