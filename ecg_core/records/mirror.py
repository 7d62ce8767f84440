"""Where raw files come from: the embedded sample, or any place that fsspec reads."""

import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import aiohttp
import fsspec

from ecg_core.records.raw import BadRawFiles, DataParams, require_inside
from ecg_core.remote import NotThere, tried

EMBEDDED = "embedded"
SAMPLE = Path("data/sample/ecg-sample.tar.xz")

Answer = TypeVar("Answer")


@runtime_checkable
class Mirror(Protocol):
    """A place that holds raw files under the paths `<dataset>/<version>/…`."""

    def read(self, path: str) -> bytes:
        """Return a file; raise NotThere, or Unreachable after every retry."""

    def size(self, path: str) -> int | None:
        """Return a file's size in bytes, None where the mirror does not tell."""


class EmbeddedSample:
    """The recordings that are part of the project, unpacked into memory."""

    def __init__(self, archive: Path) -> None:
        """Read the archive; raise BadRawFiles when it is damaged or a path would leave it."""
        self._files: dict[str, bytes] = {}
        try:
            with tarfile.open(archive, "r:xz") as tar:
                for member in tar:
                    if not member.isdir():
                        name = member.name.removeprefix("./")
                        self._files[name] = _content(tar, member, name, archive)
        except (OSError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
            raise BadRawFiles(f"{archive}: expected a .tar.xz archive, found: {error}") from error

    def read(self, path: str) -> bytes:
        """Return a file of the archive."""
        if path not in self._files:
            raise NotThere(f"{SAMPLE}: expected {path}, found no such file in it")
        return self._files[path]

    def size(self, path: str) -> int | None:
        """Return a file's size in bytes."""
        return len(self.read(path))


class RemoteMirror:
    """A URL that fsspec reads; what fails for a moment is tried again, after growing pauses."""

    def __init__(self, params: DataParams) -> None:
        """Connect lazily: nothing is fetched yet."""
        self._params = params
        protocol = params.mirror.split("://")[0]
        options: dict[str, object] = {}
        if protocol == "s3":
            options = {"anon": True}
        elif protocol in ("http", "https"):
            limits = aiohttp.ClientTimeout(
                total=None, connect=params.timeout, sock_read=params.timeout
            )
            options = {"client_kwargs": {"timeout": limits}}
        try:
            self._system, root = fsspec.core.url_to_fs(params.mirror, **options)
        except (ValueError, ImportError) as error:
            raise BadRawFiles(
                f"params.yaml: data.mirror: expected a URL, found: {error}"
            ) from error
        self._root = root.rstrip("/")

    def read(self, path: str) -> bytes:
        """Return a file, tried `data.retries` times more when the mirror fails."""
        content = self._tried(path, lambda url: self._system.cat_file(url))
        return bytes(content)

    def size(self, path: str) -> int | None:
        """Return a file's size in bytes, None where the mirror does not tell."""
        size = self._tried(path, lambda url: self._system.info(url).get("size"))
        return None if size is None else int(size)

    def _tried(self, path: str, ask: Callable[[str], Answer]) -> Answer:
        url = f"{self._root}/{path}"
        pauses = [self._params.backoff * 2**attempt for attempt in range(self._params.retries)]
        return tried(lambda: ask(url), url, pauses)


def open_mirror(params: DataParams) -> Mirror:
    """Return the mirror that `data.mirror` names."""
    return EmbeddedSample(SAMPLE) if params.mirror == EMBEDDED else RemoteMirror(params)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, archive: Path) -> bytes:
    require_inside(name, str(archive))
    file = tar.extractfile(member) if member.isfile() else None
    if file is None:
        raise BadRawFiles(f"{archive}: expected plain files, found {member.name!r}, which is none")
    return file.read()
