"""Processes that share an update, forked from the test: none of them imports torch again."""

import multiprocessing
import os
import shutil
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from small_project import StageProcess


def environments(processes: int) -> list[dict[str, str]]:
    """Return what torchrun tells each of so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    shared |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def start_pair(folder: Path, other: Path, stage: str) -> list[StageProcess]:
    """Start a stage in two processes as torchrun does, the second in a copy of the folder.

    As on another machine: what the second one writes and reads is not the first one's.
    """
    if not other.exists():
        shutil.copytree(folder, other, symlinks=True, ignore=shutil.ignore_patterns(".state"))
    folders = folder, other
    return [
        StageProcess(place, stage, environment)
        for place, environment in zip(folders, environments(2), strict=True)
    ]


def run_pair(folder: Path, other: Path, stage: str) -> list[StageProcess]:
    """Run a stage in two processes to its end."""
    return [process.end() for process in start_pair(folder, other, stage)]


def together(processes: int, work: Callable[[int], Any]) -> list[Any]:
    """Return work(rank) of each process; an exception is returned as its text."""
    context = multiprocessing.get_context("fork")
    ends = [context.Pipe(duplex=False) for _ in range(processes)]
    started = [
        context.Process(target=_work, args=(environment, work, sending))
        for environment, (_, sending) in zip(environments(processes), ends, strict=True)
    ]
    for process in started:
        process.start()
    for _, sending in ends:
        sending.close()
    results = [_received(receiving) for receiving, _ in ends]
    for process in started:
        process.join()
    return results


def _received(receiving: Connection) -> Any:
    try:
        return receiving.recv()
    except EOFError:
        return "died"


def _work(environment: dict[str, str], work: Callable[[int], Any], sending: Connection) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        answer = work(dist.get_rank())
    except Exception as error:  # noqa: BLE001 the test looks at it
        answer = f"{type(error).__name__}: {error}"
    sending.send(answer)
