"""How fast a process trains; told to the tracker, and to nothing that is an output."""

import resource
import time
from dataclasses import dataclass, field


@dataclass
class Clock:
    """How fast this process went through an epoch, or what a resumed run had left of it."""

    started: float = field(default_factory=time.monotonic)
    updates: int = 0
    segments: int = 0

    def count(self, segments: int) -> None:
        """Note an update on so many segments."""
        self.updates += 1
        self.segments += segments

    def row(self) -> dict[str, float]:
        """Return seconds an update, segments a second, and the largest memory so far in MB."""
        seconds = time.monotonic() - self.started
        return {
            "seconds_per_update": seconds / max(1, self.updates),
            "segments_per_second": self.segments / seconds,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def minutes_since(start: float) -> float:
    """Return the minutes since a time of the monotonic clock."""
    return (time.monotonic() - start) / 60
