"""How many processes share an update, and how they are started."""

import logging
import os
import signal
import socket
import sys
import threading
import time
from datetime import timedelta
from types import TracebackType
from typing import Annotated, Literal

import torch
import torch.distributed as dist
from pydantic import Field

from ecg_core.device import CommonParams, set_up_device
from ecg_core.params import Section
from ecg_core.refusal import Refusal
from ecg_core.training.distributed import PATIENCE_SECONDS

log = logging.getLogger(__name__)

LONGEST_WAIT = timedelta(hours=6)
"""For the first process, which evaluates alone; one that died is noticed at once."""

SECONDS_TO_SAVE = 60
"""What processes that were told to stop have to save before they are killed."""

STARTED_HERE = "ecg-"
"""How the elastic launcher's run ids begin where this module and not torchrun is the starter."""


class DistributedParams(Section):
    """Section `distributed_training`."""

    distributed_world_size: int = Field(ge=1)
    processes: Literal["auto"] | Annotated[int, Field(ge=1)]

    def micro_batches(self, update_freq: tuple[int, ...]) -> tuple[int, ...]:
        """Return how many micro-batches make an update, by epoch: side by side times in turn."""
        return tuple(self.distributed_world_size * in_turn for in_turn in update_freq)


def join(
    stage: str, common: CommonParams, world: DistributedParams, per_update: tuple[int, ...]
) -> torch.device:
    """Return this process's device, among the processes that share an update's micro-batches.

    Under torchrun this process is one of them. Otherwise, where several are wanted, they are
    started, and this call does not return, like `exec`: it leaves with their exit status.
    `per_update` says how many micro-batches an update has, by epoch.
    """
    micro_batches = max(per_update)
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return _take_part(common, micro_batches)
    gpus = torch.cuda.device_count() if common.device != "cpu" else 0
    wanted = max(1, gpus) if world.processes == "auto" else world.processes
    processes = min(wanted, micro_batches)
    if 0 < gpus < processes:
        raise Refusal(
            f"params.yaml: distributed_training.processes: expected at most {gpus}, one a GPU, "
            f"found {wanted}"
        )
    if max(wanted, micro_batches) > 1:
        enough = "; more than micro-batches would idle" if wanted > processes else ""
        _tell(micro_batches, processes, f"{world.processes}, {gpus} GPUs{enough}")
    if processes > 1:
        raise SystemExit(_run(stage, processes))
    return set_up_device(common)


def _tell(micro_batches: int, processes: int, why: str) -> None:
    in_turn = -(-micro_batches // processes)
    counts = _count(micro_batches, "micro-batch"), _count(processes, "process")
    log.info("%s an update, on %s (%s), %d in turn", *counts, why, in_turn)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("es" if number > 1 else "")


def _run(stage: str, processes: int) -> int:
    """Start a stage in several processes with torch's elastic launcher; return the exit status."""
    # imported here: one process alone has no use for it
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in list(logging.Logger.manager.loggerDict):
        if name.startswith("torch.distributed"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)
    _talk_on_loopback()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"{STARTED_HERE}{stage}-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        shutdown_timeout=SECONDS_TO_SAVE,
    )
    try:
        elastic_launch(config, sys.executable)("-m", f"stages.{stage}")
    except SignalException as asked:
        return 128 + asked.sigval
    except ChildFailedError as failed:
        number, failure = failed.get_first_failure()
        if failure.exitcode > 0:
            return int(failure.exitcode)  # it has said why
        name = signal.Signals(-failure.exitcode).name
        log.error(
            "error: process %d of %d: expected it to end by itself, found it killed by %s; the "
            "others were ended",
            number,
            processes,
            name,
        )
        return 128 - int(failure.exitcode)
    return 0


def _talk_on_loopback() -> None:
    """Let processes on one machine need no name for it and no network."""
    for _, name in socket.if_nameindex():
        if name.startswith("lo"):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def _take_part(common: CommonParams, micro_batches: int) -> torch.device:
    """Become one of the processes that torchrun, or this module, has started."""
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if processes > micro_batches:
        raise Refusal(
            f"torchrun: expected at most {micro_batches} processes, the micro-batches of an update "
            f"(params.yaml: distributed_training.distributed_world_size x update_freq), found "
            f"{processes}"
        )
    if rank > 0:
        logging.getLogger().setLevel(logging.ERROR)
        sys.excepthook = _speak_last
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "")
    started_here = run_id.startswith(STARTED_HERE)
    if rank == 0 and not started_here:
        _tell(micro_batches, processes, "torchrun")
    device = set_up_device(common)
    # the starter may have died while this process imported: then its parent is another by now
    _end_with(int(run_id.rpartition("-")[2]) if started_here else os.getppid())
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=LONGEST_WAIT)
    return device


def _speak_last(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Print a traceback after a while; where all processes fail alike, the first one's is enough.

    It has this process ended meanwhile. Refusals wait likewise (stages/command.py).
    """
    time.sleep(PATIENCE_SECONDS)
    sys.__excepthook__(kind, error, traceback)


def _end_with(parent: int) -> None:
    """Stop as at SIGTERM when the process that started this one dies, even by SIGKILL."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SECONDS_TO_SAVE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
