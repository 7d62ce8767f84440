"""SIGTERM and Ctrl-C: the update under way is given up and the state before it saved."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Stop:
    """Which signal asked for an end, 0 for none."""

    number: int = 0

    @property
    def is_set(self) -> bool:
        """Whether a signal came."""
        return self.number != 0


@contextmanager
def stop_signal() -> Iterator[Stop]:
    """Note SIGTERM and Ctrl-C instead of dying at once."""
    stop = Stop()

    def note(number: int, _: FrameType | None) -> None:
        stop.number = number

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
