"""Ask a place that fsspec reaches: what fails for a moment is tried again, after pauses."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import aiohttp
from botocore.exceptions import BotoCoreError
from fsspec.exceptions import FSTimeoutError

from ecg_core.refusal import Refusal

_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_TRANSIENT = (OSError, aiohttp.ClientError, FSTimeoutError, BotoCoreError)
_BUSY = (408, 425, 429)

Answer = TypeVar("Answer")


class Unreachable(Refusal):
    """A place did not answer, after every retry."""


class NotThere(Refusal):
    """A place answers, but does not hold a file, or does not give it."""


def tried(ask: Callable[[], Answer], url: str, pauses: Sequence[float]) -> Answer:
    """Return the answer, asked for once more after each pause (seconds) while the place fails.

    Raises NotThere, or Unreachable after every retry.
    """
    for pause in (*pauses, None):
        try:
            return ask()
        except _FINAL as error:
            raise NotThere(f"{url}: expected a file, found: {error}") from error
        except _TRANSIENT as error:
            failure = f"{type(error).__name__}: {error}"
            status = getattr(error, "status", None)
            if isinstance(status, int) and 400 <= status < 500 and status not in _BUSY:
                raise NotThere(f"{url}: expected a file, found: {failure}") from error
        if pause is not None:
            time.sleep(pause)
    raise Unreachable(
        f"{url}: expected an answer, found {failure} ({len(pauses) + 1} times); "
        "run again to go on from here"
    )
