"""Do the same to many things at once, with a progress bar; results come in the things' order."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import TypeVar

from tqdm import tqdm

from ecg_core.refusal import Refusal

Thing = TypeVar("Thing")
Chunk = TypeVar("Chunk", bound=Sized)
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Chunk], Result],
    chunks: Sequence[Chunk],
    workers: int,
    what: str,
) -> Iterator[Result]:
    """Yield what a function makes of each chunk, computed by as many processes as `workers` says.

    The bar is silent where the log is no terminal. Raises Refusal when a process is killed.
    """
    total = sum(len(chunk) for chunk in chunks)
    with tqdm(total=total, desc=what, unit="records", unit_scale=True, disable=None) as bar:
        if workers == 1:
            for chunk in chunks:
                yield function(chunk)
                bar.update(len(chunk))
            return
        with ProcessPoolExecutor(workers, initializer=_end_with_parent) as pool:
            try:
                results = pool.map(function, chunks)
                for chunk, result in zip(chunks, results, strict=True):
                    yield result
                    bar.update(len(chunk))
            except BrokenProcessPool:
                raise Refusal(
                    f"{what}: expected {workers} processes to finish, found one killed "
                    "(out of memory?); run again, or lower data.workers"
                ) from None
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def in_chunks(things: Sequence[Thing], size: int) -> list[Sequence[Thing]]:
    """Return the things in lists of the given size, the last one perhaps shorter."""
    return [things[start : start + size] for start in range(0, len(things), size)]


def _end_with_parent() -> None:
    """Let no worker outlive a stage that is killed: it would wait for work for ever."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
