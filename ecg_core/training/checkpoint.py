"""The state from which a killed run goes on; never an output, so DVC never deletes it.

It lies in `$DVC_ROOT/.state/<stage>-<hash of everything that decides the result>/`: a run with
other parameters, data or code has another folder and cannot pick it up.
"""

import fcntl
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from ecg_core.params import Section
from ecg_core.refusal import Refusal

log = logging.getLogger(__name__)


class CheckpointParams(Section):
    """Section `checkpoint`."""

    keep_epochs: tuple[int, ...]
    save_interval_minutes: float = Field(gt=0)


def state_root() -> Path:
    """Return the git-ignored folder of everything that is not a result."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".state"


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
        text = json.dumps(identity, sort_keys=True)
        name = f"{stage}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.path = state_root() / name
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "identity.json").write_text(json.dumps(identity, indent=1, sort_keys=True))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; refuse where another process holds it."""
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refusal(
                    f"{self.path}: expected a free folder, found another run of the same "
                    "parameters in it"
                ) from None
            yield

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state beside, with its checksum, and rename it; keep the last two."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        content = buffer.getbuffer()
        target = self.path / f"state-{state['epoch']:06d}-{state['updates_in_epoch']:06d}.pt"
        beside = target.with_suffix(".tmp")
        with beside.open("wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
        # a longer run may have been here before: its finished state stays, no other one does
        so_far = [path for path in self._states() if path <= target]
        for old in set(self._states()) - set(so_far[-2:]):
            if not self._finished_mark(old).exists():
                old.unlink()

    def load(self, max_epoch: int) -> dict[str, Any] | None:
        """Return the newest whole state of at most `max_epoch` epochs, or None."""
        for path in reversed(self._states()):
            if self._position(path) > (max_epoch, 0):
                continue
            content = path.read_bytes()
            if hashlib.sha256(content[32:]).digest() == content[:32]:
                state = torch.load(io.BytesIO(content[32:]), weights_only=True)
                log.info("going on from %s (`make forget` discards it)", path)
                return dict(state)
            log.warning("%s: torn, going on from the state before it", path)
        return None

    def mark_finished(self, epoch: int) -> None:
        """Remember that the run's outputs were written at this length."""
        for path in self._states():
            if self._position(path) == (epoch, 0):
                self._finished_mark(path).touch()

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
