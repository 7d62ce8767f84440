"""The state from which a killed run goes on; never an output, so DVC never deletes it.

It lies in `$DVC_ROOT/.state/<stage>-<hash of everything that decides the result>/`: a run with
other parameters, data or code has another folder and cannot pick it up.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pydantic import Field

from ecg_core.outputs import CannotWrite, flush_to_disk, whole, write_bytes, write_json
from ecg_core.params import Section, read_yaml
from ecg_core.refusal import Refusal

log = logging.getLogger(__name__)

DIGEST_BYTES = 32
"""Of the SHA-256 sum behind a state's content."""


class CheckpointParams(Section):
    """Section `checkpoint`."""

    keep_epochs: tuple[int, ...]
    save_interval_minutes: float = Field(gt=0)


def state_root() -> Path:
    """Return the git-ignored folder of everything that is not a result."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".state"


def code_of(stage: str) -> list[Path]:
    """Return the files of code that decide a stage's result: those among its deps in dvc.yaml.

    A test holds them to be what the stage imports (tests/test_pipeline_is_honest.py).
    """
    deps = read_yaml(Path("dvc.yaml"))["stages"][stage]["deps"]
    return [Path(dep) for dep in deps if Path(dep).parts[0] in ("ecg_core", "stages")]


def digest(paths: Sequence[Path], pattern: str) -> str:
    """Return a digest of files, given by path, and of a folder's files that fit the pattern."""
    total = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob(pattern)) if path.is_dir() else [path]:
            with file.open("rb") as content:
                total.update(f"{file.as_posix()}\n".encode())
                total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def identity(
    sections: Sequence[Section], code: Sequence[Path], data: Sequence[Path]
) -> dict[str, object]:
    """Return everything that decides a run's result, except how long it goes on.

    A learning rate depends on the update alone, so 55 epochs are the beginning of 200: max_epoch
    takes no part, nor does what changes no result.
    """
    without = {"max_epoch", "save_interval_minutes", "num_workers", "no_progress_bar"}
    return {
        "sections": [section.model_dump(mode="json", exclude=without) for section in sections],
        "code": digest(code, "*.py"),
        "data": digest(data, "*"),
        "torch": torch.__version__,
    }


class StateFolder:
    """The saved states of one run: the last two, and one for each length it was finished at."""

    def __init__(self, stage: str, identity: Mapping[str, Any]) -> None:
        self.identity = identity
        text = json.dumps(identity, sort_keys=True)
        name = f"{stage}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.path = state_root() / name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; refuse where another process holds it or nothing can be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / "lock").open("w")
        except OSError as error:
            raise CannotWrite(
                f"{self.path}: expected a folder to save states in, found: {error.strerror}"
            ) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refusal(
                    f"{self.path}: expected a free folder, found another run of the same "
                    "parameters in it"
                ) from None
            for left_by_a_killed_run in self.path.glob("*.tmp"):
                left_by_a_killed_run.unlink()
            write_json(self.path / "identity.json", self.identity)
            yield

    def save(self, state: Mapping[str, Any]) -> bool:
        """Write a state beside and rename it; keep the last two; return whether it was written.

        A disk that is full now may not be so later, and a run that waits for it gains nothing: it
        goes on with what was saved before, and says so at every save that fails. The first one,
        though, must succeed: a run of which nothing can be saved ends with CannotWrite.
        """
        target = self.path / f"state-{state['epoch']:06d}-{state['updates_in_epoch']:06d}.pt"
        try:
            with whole(target) as beside, beside.open("wb") as file:
                _write(file, state)
        except CannotWrite as refusal:
            if not self._states():
                raise
            log.warning("%s; going on, with %s as the last saved", refusal, self._states()[-1].name)
            return False
        flush_to_disk(self.path)
        # a longer run may have been here before: its finished state stays, no other one does
        so_far = [path for path in self._states() if path <= target]
        for old in set(self._states()) - set(so_far[-2:]):
            if not self._finished_mark(old).exists():
                old.unlink()
        return True

    def load(self, max_epoch: int) -> dict[str, Any] | None:
        """Return the newest whole state of at most `max_epoch` epochs, or None; drop torn ones."""
        for path in reversed(self._states()):
            if self._position(path) > (max_epoch, 0):
                continue
            with path.open("rb") as file:
                if _is_whole(file):
                    file.seek(0)
                    state = torch.load(file, map_location="cpu", weights_only=True)
                    log.info("going on from %s (`make forget` discards it)", path)
                    return dict(state)
            log.warning("%s: expected a whole state, found it torn; taking the one before", path)
            path.unlink()
        return None

    def mark_finished(self, epoch: int) -> None:
        """Remember that the run's outputs were written at this length."""
        for path in self._states():
            if self._position(path) == (epoch, 0):
                try:
                    write_bytes(self._finished_mark(path), b"")
                except CannotWrite as refusal:  # then a forced run goes on from here, to this end
                    log.warning("%s", refusal)

    def forget_if_finished(self, epoch: int) -> None:
        """Start anew where a finished run of this very length is asked for again.

        DVC runs a finished stage again only when it is forced to, and then means it.
        """
        for path in self._states():
            if self._position(path) == (epoch, 0) and self._finished_mark(path).exists():
                for old in self.path.iterdir():
                    if old.name not in ("lock", "identity.json"):
                        old.unlink()
                return

    def _states(self) -> list[Path]:
        return sorted(self.path.glob("state-*.pt"))

    def _position(self, path: Path) -> tuple[int, int]:
        _, epoch, updates = path.stem.split("-")
        return int(epoch), int(updates)

    def _finished_mark(self, path: Path) -> Path:
        return path.with_suffix(".finished")


class _Summed:
    """A file that is written from its beginning to its end, with the SHA-256 sum of it so far."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sum = hashlib.sha256()
        self.failure: OSError | None = None

    def write(self, content: memoryview) -> int:
        self.sum.update(content)
        try:
            return self.file.write(content)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _write(file: BinaryIO, state: Mapping[str, Any]) -> None:
    """Write a state and its sum through to the disk, without a copy of it in memory."""
    summed = _Summed(file)
    try:
        torch.save(dict(state), summed)  # type: ignore[arg-type] # all that it calls is here
    except RuntimeError:
        if summed.failure is not None:  # torch has its own words for it, without the reason
            raise summed.failure from None
        raise
    file.write(summed.sum.digest())
    file.flush()
    os.fsync(file.fileno())


def _is_whole(file: BinaryIO) -> bool:
    """Return whether a file ends with the sum of what stands before it."""
    left = max(0, os.fstat(file.fileno()).st_size - DIGEST_BYTES)
    found = hashlib.sha256()
    while chunk := file.read(min(left, 1 << 20)):
        found.update(chunk)
        left -= len(chunk)
    return file.read() == found.digest()
